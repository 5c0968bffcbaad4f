//! A command's end of the control socket.

use std::io;
use std::path::Path;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::server::read_line;
use super::{CONTROL_VERSION, CommandError, Envelope, Line, Request};
use crate::platform;

/// A connection to the node that runs in a data folder. Dropping it (Ctrl-C, too) cancels the request.
#[derive(Debug)]
pub struct Client(UnixStream);

/// Why a command got no answer from the running node.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node answered that it did not do it.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The node went away before it answered.
    #[error("the node ended before it answered; `atmo status` tells whether it still runs")]
    NodeEnded,
    #[error("the control socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The caller could not pass a piece of the answer on (a closed pipe). The request was cancelled.
    #[error("the answer could not be written: {0}")]
    Output(io::Error),
    #[error("the node answered in a way this `atmo` does not understand ({0}); restart the node with this `atmo`")]
    Misunderstood(#[from] serde_json::Error),
}

impl ClientError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(error) => error.exit_code,
            Self::NodeEnded | Self::Socket(_) | Self::Output(_) | Self::Misunderstood(_) => CommandError::FAILED,
        }
    }
}

impl Client {
    /// `None` when no node runs in `data_dir`.
    pub async fn connect(data_dir: &Path) -> Option<Self> {
        let path = platform::control_socket_path(data_dir).ok()?;
        UnixStream::connect(path).await.ok().map(Self)
    }

    /// Asks one thing; `on_delta` sees the pieces of the answer as they arrive. An error from it (a closed pipe) ends the request.
    pub async fn request(
        self,
        request: Request,
        mut on_delta: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<serde_json::Value, ClientError> {
        let (reading, mut writing) = self.0.into_split();
        let mut line = serde_json::to_vec(&Envelope { version: CONTROL_VERSION, request })?;
        line.push(b'\n');
        writing.write_all(&line).await?;
        let mut reading = BufReader::new(reading);
        loop {
            let line = read_line(&mut reading).await?.ok_or(ClientError::NodeEnded)?;
            match serde_json::from_slice(&line)? {
                Line::Delta(text) => on_delta(&text).map_err(ClientError::Output)?,
                Line::Done(value) => return Ok(value),
                Line::Error(error) => return Err(error.into()),
            }
        }
    }
}
