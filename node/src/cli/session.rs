//! What one run of a command has: a folder, a way to print, perhaps a node to talk to.

use std::io;
use std::path::PathBuf;

use serde_json::Value;

use crate::config::ConfigError;
use crate::control::{Client, ClientError, CommandError, Request};
use crate::store::{self, Store, StoreError};

/// Why a command stops early.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    #[error(transparent)]
    Failed(#[from] CommandError),
    /// Whoever read standard output wants no more: no error.
    #[error("standard output was closed")]
    PipeClosed,
}

/// The folder and the way of printing that the command line chose.
#[derive(Debug)]
pub struct Session {
    pub data_dir: PathBuf,
    pub json: bool,
}

impl Session {
    /// The running node, where there is one.
    pub async fn node(&self) -> Option<Client> {
        Client::connect(&self.data_dir).await
    }

    /// Asks the running node; without one the command cannot be done.
    pub async fn ask(&self, request: Request) -> Result<Value, Stop> {
        self.ask_streaming(request, |_| Ok(())).await
    }

    pub async fn ask_streaming(&self, request: Request, on_delta: impl FnMut(&str) -> io::Result<()>) -> Result<Value, Stop> {
        let node = self.node().await.ok_or_else(|| self.no_node())?;
        Ok(node.request(request, on_delta).await?)
    }

    /// The folder, for this command alone. Fails in one line when a node took it meanwhile.
    pub fn store(&self) -> Result<Store, Stop> {
        Ok(Store::open_with_key(&self.data_dir, super::key_file().as_deref())?)
    }

    fn no_node(&self) -> CommandError {
        let dir = self.data_dir.display();
        if store::holder_of(&self.data_dir).is_some() {
            return CommandError::failed(format_args!(
                "the node in {dir} is stopping: it finishes what it is answering, for ten seconds at most"
            ));
        }
        CommandError::failed(format_args!(
            "no node is running in {dir}; start one with `atmo up`, or name its folder with --data-dir"
        ))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::PipeClosed } else { Self::Failed(CommandError::failed(error)) }
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(error) => Self::Failed(error),
            ClientError::Output(error) => error.into(),
            other => Self::Failed(CommandError::failed(other)),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(CommandError::failed(error))
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::Failed(CommandError { message: error.to_string(), exit_code: error.exit_code() })
    }
}
