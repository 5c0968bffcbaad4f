//! The command line: what can be asked, and which exit code answers.
//!
//! 0 done, 1 failed, 2 asked wrongly, 3 nothing fits. What was asked for goes to standard output, everything else to standard error.
//! Commands talk to the node that runs in the data folder; the few that make sense without one work on the folder themselves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::audit::event::KINDS;
use crate::config::{self, Flags};
use crate::control::CommandError;
use crate::logging;

mod ask;
mod audit;
mod backup;
mod bench;
mod cert;
mod chat;
mod evaluation;
mod grant;
mod invites;
mod key;
mod mesh;
pub mod print;
mod qr;
mod revoke;
mod session;
mod show;
mod span;
mod up;

use session::{Session, Stop};

const EXAMPLES: &str = "\
Examples:
  atmo up                       start the node and its OpenAI endpoint, http://127.0.0.1:11451/v1
  atmo mesh create home         name the mesh
  atmo invite                   print a join code for one more machine
  atmo join CODE                on that machine
  atmo intent \"what is a mesh?\" have the best model of the mesh answer";

/// One AI mesh out of the machines you own
#[derive(Debug, Parser)]
#[command(name = "atmo", version, after_help = EXAMPLES, max_term_width = 100)]
struct CommandLine {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
struct Common {
    /// The node's folder [default: the platform's folder for application data] [env: ATMO_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node and stay in the foreground; Ctrl-C drains, once more ends at once
    #[command(after_help = "Examples:\n  atmo up\n  atmo up --name attic --join CODE\n  atmo up --mode provider --no-builtin")]
    Up(Box<UpArguments>),
    /// Stop the running node; what it is answering gets ten seconds to finish
    #[command(after_help = "Example:\n  atmo down")]
    Down,
    /// Found or name a mesh
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Print a join code that admits other machines
    #[command(after_help = "Examples:\n  atmo invite\n  atmo invite --ttl 7d --uses 5\n  atmo invite --roles consume\n  \
                      atmo invite --label \"the phone\" --qr")]
    Invite(InviteArguments),
    /// List the invitations made here, or take one back
    #[command(subcommand)]
    Invites(InvitesCommand),
    /// Join the mesh that a code stands for
    #[command(after_help = "Example:\n  atmo join CODE        CODE comes from `atmo invite` on a member")]
    Join {
        /// What `atmo invite` printed
        code: String,
    },
    /// Take a node, a certificate or an invitation out of the mesh, for good
    #[command(after_help = "Examples:\n  atmo revoke laptop\n  atmo revoke 0a1b2c3d4e --keep phone --yes\n  \
                      atmo revoke CODE           what `atmo invite` printed admits nobody any more\n  \
                      atmo revoke 17@0a1b2c3d4e  one certificate, by its serial and issuer")]
    Revoke(RevokeArguments),
    /// List what is revoked in the mesh, by whom and when
    #[command(after_help = "Examples:\n  atmo revocations\n  atmo revocations --json")]
    Revocations,
    /// Show certificates: who is a member by whose word, with which roles, until when
    #[command(subcommand)]
    Cert(CertCommand),
    /// Give a member other roles; all that it has from then on
    #[command(after_help = "Examples:\n  atmo grant laptop consume,provide,issue\n  atmo grant 0a1b2c3d4e consume --yes")]
    Grant(GrantArguments),
    /// Leave the mesh; the node keeps its identity
    #[command(after_help = "Example:\n  atmo leave")]
    Leave,
    /// Show the running node: who it is, what it offers, what is wrong
    #[command(after_help = "Examples:\n  atmo status\n  atmo status --json")]
    Status,
    /// List the nodes of the mesh
    #[command(after_help = "Examples:\n  atmo nodes\n  atmo nodes --all")]
    Nodes(ListArguments),
    /// List what the mesh can do
    #[command(after_help = "Examples:\n  atmo capabilities\n  atmo capabilities --all --json")]
    Capabilities(ListArguments),
    /// Show who would answer, and why, without running anything
    #[command(after_help = "Examples:\n  atmo route \"write a python function that sorts a list\"\n  \
                      atmo route --explain --require-free \"hi\"\n  atmo route eval set.json")]
    Route(Box<RouteArguments>),
    /// Have the best capability of the mesh answer
    #[command(
        after_help = "Examples:\n  atmo intent \"what is a mesh?\"\n  atmo intent --explain \"translate to French: good morning\"\n  \
                      git diff | atmo intent -"
    )]
    Intent(Box<IntentArguments>),
    /// Talk with the mesh, one line a turn
    #[command(after_help = "Examples:\n  atmo chat\n  atmo chat --model qwen2.5:7b\n  echo hello | atmo chat")]
    Chat(Box<ChatArguments>),
    /// Make, list and revoke keys of the API
    #[command(subcommand)]
    Key(KeyCommand),
    /// Read and check the record of who joined, was refused or revoked, and what ran where
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Measure on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Check this machine and this node, with the next step for whatever is wrong
    #[command(after_help = "Example:\n  atmo doctor")]
    Doctor,
    /// Print a script that completes commands in a shell
    #[command(after_help = "Example:\n  atmo completions bash > ~/.local/share/bash-completion/completions/atmo")]
    Completions {
        /// The shell to complete in
        shell: clap_complete::Shell,
    },
    /// The process that runs the built-in engine; started by the node
    #[command(hide = true)]
    Worker {
        /// Settings of the engine
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct UpArguments {
    /// What people call this node [default: the machine's name] [env: ATMO_NAME]
    #[arg(long)]
    name: Option<String>,
    /// standalone, provider, participant or headless [default: participant] [env: ATMO_MODE]
    #[arg(long)]
    mode: Option<String>,
    /// Where the API listens; beyond loopback it needs keys (`atmo key create`) [default: 127.0.0.1:11451] [env: ATMO_API]
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    /// Where other nodes connect to, as often as needed [default: UDP and TCP 11452 on all interfaces] [env: ATMO_LISTEN]
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Join this mesh first, unless already a member of it [env: ATMO_JOIN_CODE]
    #[arg(long, value_name = "CODE")]
    join: Option<String>,
    /// The configuration file [default: atmo.toml in the data folder, if it is there] [env: ATMO_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not look for members on the local network [env: ATMO_MDNS=false]
    #[arg(long)]
    no_mdns: bool,
    /// Do not look for engines on loopback [env: ATMO_DISCOVER=false]
    #[arg(long)]
    no_discover: bool,
    /// Do not offer the built-in model [env: ATMO_BUILTIN=false]
    #[arg(long)]
    no_builtin: bool,
}

#[derive(Debug, Subcommand)]
enum MeshCommand {
    /// Name this node's private mesh, or found one
    #[command(after_help = "Example:\n  atmo mesh create home")]
    Create {
        /// What people call the mesh
        name: Option<String>,
    },
    /// Write the mesh's root key to a file that a passphrase opens
    #[command(
        after_help = "Examples:\n  atmo mesh backup\n  atmo mesh backup --out /media/stick/home.txt --passphrase-file pass.txt"
    )]
    Backup {
        /// The file to write; it must not be there yet [default: atmosphere-root-ID.txt in this folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Take the passphrase from the first line of this file [default: ask]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Make this node a founder of the mesh whose root a backup holds
    #[command(after_help = "Examples:\n  atmo mesh restore home.txt\n  atmo mesh restore home.txt --passphrase-file pass.txt")]
    Restore {
        /// What `atmo mesh backup` wrote
        file: PathBuf,
        /// Take the passphrase from the first line of this file [default: ask]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Show this node's certificate and what it hangs from, or a member's
    #[command(after_help = "Examples:\n  atmo cert show\n  atmo cert show laptop\n  atmo cert show 0a1b2c3d4e --json")]
    Show {
        /// A member, by name, id or the id's beginning [default: this node]
        node: Option<String>,
    },
}

#[derive(Debug, Args)]
struct InviteArguments {
    /// How long the code can be used: 90s, 30m, 24h, 7d
    #[arg(long, default_value = "24h", value_parser = span::parse)]
    ttl: Duration,
    /// How many machines it admits
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// What they may do: consume, provide, issue, admin
    #[arg(long, default_value = "consume,provide", value_delimiter = ',')]
    roles: Vec<String>,
    /// What to call the invitation in `atmo invites list`
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// Draw the code as a QR code, too
    #[arg(long, conflicts_with = "json")]
    qr: bool,
}

#[derive(Debug, Args)]
struct GrantArguments {
    /// A member, by name, id or the id's beginning
    node: String,
    /// What it may do: consume, provide, issue, admin; none that this node has not itself
    #[arg(required = true, value_delimiter = ',')]
    roles: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum InvitesCommand {
    /// List the invitations that admit somebody, with what is left of them
    #[command(after_help = "Examples:\n  atmo invites list\n  atmo invites list --all --json")]
    List(InvitesListArguments),
    /// Let an invitation admit nobody any more; whom it admitted stays
    #[command(after_help = "Examples:\n  atmo invites revoke CODE\n  atmo invites revoke 0a1b2c3d4e --yes")]
    Revoke {
        /// The code, the invitation's id as `atmo invites list` shows it, or the id's beginning
        #[arg(value_name = "ID|CODE")]
        invitation: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct InvitesListArguments {
    /// Also those that were revoked or used up, or have expired
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    /// A node (id, its beginning, or name), a certificate (SERIAL or SERIAL@ISSUER), or an invitation (code, id or its beginning)
    #[arg(value_name = "NODE|SERIAL|INVITATION", required_unless_present = "list")]
    target: Option<String>,
    /// Which of these it is, where that is not plain: node, serial or invitation
    #[arg(long)]
    kind: Option<String>,
    /// A node that stays a member although the revoked admitted it, as often as needed
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Even if this node loses its own membership by it
    #[arg(long)]
    force: bool,
    /// List what is revoked, as `atmo revocations` does
    #[arg(long, conflicts_with_all = ["target", "kind", "keep", "yes", "force"])]
    list: bool,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Also what is suspected or dead
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct RouteArguments {
    #[command(subcommand)]
    command: Option<RouteCommand>,
    /// What is wanted, in words
    #[arg(required = true)]
    text: Option<String>,
    /// Show every factor of every candidate, what would have changed the choice, and who was excluded and why
    #[arg(long)]
    explain: bool,
    /// This model and no other
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    constraints: ConstraintArguments,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Measure routing on a labelled set of capabilities and intents; needs no node
    #[command(after_help = "Example:\n  atmo route eval set.json\n\nThe file: {\"capabilities\": [{\"id\", \"type\", \"name\", \
                            \"description\", \"metadata\"?, \"exemplars\"?}],\n           \"intents\": [{\"text\", \"accept\": [ids]}], \
                            \"unserved\": {\"without\": [ids], \"texts\": [...]}}")]
    Eval {
        /// The labelled set, as JSON
        file: PathBuf,
        /// Also show what each factor adds
        #[arg(long)]
        ablate: bool,
    },
}

/// Hard constraints, under the names that headers (`x-atmo-max-cost`) and the `atmo` object of a request have as well.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Constraints")]
struct ConstraintArguments {
    /// Capabilities of this type: llm, embedding, rag, ...
    #[arg(long = "type", value_name = "TYPE")]
    kind: Vec<String>,
    /// Capabilities of this node, by name or id
    #[arg(long)]
    node: Vec<String>,
    /// None of this node's
    #[arg(long, value_name = "NODE")]
    not_node: Vec<String>,
    /// Nodes with this label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Nodes whose label `residency` names this place
    #[arg(long, value_name = "PLACE")]
    residency: Vec<String>,
    /// This node's own capabilities alone
    #[arg(long)]
    local_only: bool,
    /// Models that can call tools
    #[arg(long)]
    tools: bool,
    /// Models that take images
    #[arg(long)]
    vision: bool,
    /// Models with room for so many tokens
    #[arg(long, value_name = "TOKENS")]
    context_tokens: Option<String>,
    /// At most this much money for the whole request, by a pessimistic estimate
    #[arg(long, value_name = "MONEY")]
    max_cost: Option<String>,
    /// The first token within this time, as expected
    #[arg(long, value_name = "MS")]
    max_latency_ms: Option<String>,
    /// Models of this quality or better, 0 to 1
    #[arg(long, value_name = "SHARE")]
    min_quality: Option<String>,
    /// What costs nothing
    #[arg(long)]
    require_free: bool,
}

#[derive(Debug, Args)]
struct IntentArguments {
    /// What is wanted, in words; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Say why this one was chosen and not the others
    #[arg(long)]
    explain: bool,
    /// This model and no other
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    constraints: ConstraintArguments,
}

#[derive(Debug, Args)]
struct ChatArguments {
    /// This model and no other
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    constraints: ConstraintArguments,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// What a node adds to a request, beside nginx where it is installed
    #[command(
        after_help = "Examples:\n  atmo bench proxy\n  atmo bench proxy --rounds 10 --requests 2000 --slow-streams 1000 --json"
    )]
    Proxy {
        /// Rounds, in each of which every way has its turn
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Requests of each way at each concurrency in a round
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
        requests: u32,
        /// Slow streams at once, for memory and evenness; 0 leaves them out
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(..=10_000))]
        slow_streams: u32,
        /// An engine to measure against that runs already, as `atmo bench mock` printed it
        #[arg(long, value_name = "HOST:PORT")]
        mock: Option<SocketAddr>,
        /// Another proxy before that engine, as often as needed
        #[arg(long, value_name = "NAME=HOST:PORT", value_parser = bench::beside)]
        beside: Vec<(String, SocketAddr)>,
    },
    /// The engine that is measured against; prints its address
    #[command(hide = true)]
    Mock,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key; it is shown once
    #[command(
        after_help = "Examples:\n  atmo key create phone\n  atmo key create app --per-minute 60 --concurrent 4 --model auto --model qwen2.5:7b"
    )]
    Create(KeyCreateArguments),
    /// List the keys there are
    #[command(after_help = "Example:\n  atmo key list")]
    List,
    /// Let a key admit nobody any more, and end what it has under way
    #[command(after_help = "Example:\n  atmo key revoke phone")]
    Revoke {
        /// Its id or name
        key: String,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// List what happened, the latest last
    #[command(after_help = "Examples:\n  atmo audit list\n  atmo audit list --kind joined --kind refused --since 7d\n  \
                      atmo audit list --kind asked --limit 10 --json")]
    List(AuditListArguments),
    /// Check that nothing in the record was changed or is missing; exit code 1 where something was
    #[command(after_help = "Examples:\n  atmo audit verify\n  atmo audit verify --json || echo tampered")]
    Verify,
    /// Write the record as it is, one JSON object a line
    #[command(after_help = "Examples:\n  atmo audit export | gzip > audit.jsonl.gz\n  atmo audit export --out audit.jsonl")]
    Export {
        /// A new or replaced file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct AuditListArguments {
    /// Events of this kind, as often as needed [default: all but file and checkpoint]
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    kind: Vec<String>,
    /// Not older than this: 90s, 30m, 24h, 7d
    #[arg(long, value_name = "SPAN", value_parser = span::parse)]
    since: Option<Duration>,
    /// At most so many, the latest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, Args)]
struct KeyCreateArguments {
    /// Whose it is or what for
    name: String,
    /// Requests a minute
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// Requests at once
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,
    /// A model it may use, as often as needed; `auto` lets the mesh choose among them
    #[arg(long)]
    model: Vec<String>,
}

impl From<UpArguments> for Flags {
    fn from(arguments: UpArguments) -> Self {
        let UpArguments { name, mode, api, listen, join, config, no_mdns, no_discover, no_builtin } = arguments;
        Self { name, mode, api, listen, join, config, no_mdns, no_discover, no_builtin }
    }
}

/// Does what the command line asks.
pub fn run() -> ExitCode {
    let CommandLine { common, command } = CommandLine::parse();
    let as_json = common.json;
    match dispatch(common, command) {
        Ok(code) => code,
        Err(Stop::PipeClosed) => ExitCode::SUCCESS,
        Err(Stop::Failed(CommandError { message, exit_code })) => {
            print::error(&message, exit_code, as_json);
            ExitCode::from(exit_code)
        }
    }
}

fn dispatch(common: Common, command: Command) -> Result<ExitCode, Stop> {
    match command {
        Command::Up(arguments) => up::up(data_dir(&common)?, (*arguments).into(), common.json),
        Command::Down => talk(common, mesh::down),
        Command::Mesh(MeshCommand::Create { name }) => talk(common, async |session| mesh::create(session, name).await),
        Command::Mesh(MeshCommand::Backup { out, passphrase_file }) => {
            talk(common, async |session| backup::backup(session, out, passphrase_file).await)
        }
        Command::Mesh(MeshCommand::Restore { file, passphrase_file }) => {
            talk(common, async |session| backup::restore(session, file, passphrase_file).await)
        }
        Command::Invite(arguments) => talk(common, async |session| mesh::invite(session, arguments).await),
        Command::Invites(command) => talk(common, async |session| invites::invites(session, command).await),
        Command::Join { code } => talk(common, async |session| mesh::join(session, code).await),
        Command::Revoke(arguments) => talk(common, async |session| revoke::revoke(session, arguments).await),
        Command::Revocations => talk(common, revoke::revocations),
        Command::Cert(command) => talk(common, async |session| cert::cert(session, command).await),
        Command::Grant(arguments) => talk(common, async |session| grant::grant(session, arguments).await),
        Command::Leave => talk(common, mesh::leave),
        Command::Status => talk(common, show::status),
        Command::Nodes(arguments) => talk(common, async |session| show::nodes(session, arguments.all).await),
        Command::Capabilities(arguments) => talk(common, async |session| show::capabilities(session, arguments.all).await),
        Command::Route(arguments) => talk(common, async |session| ask::route(session, *arguments).await),
        Command::Intent(arguments) => talk(common, async |session| ask::intent(session, *arguments).await),
        Command::Chat(arguments) => talk(common, async |session| chat::chat(session, *arguments).await),
        Command::Key(command) => talk(common, async |session| key::key(session, command).await),
        Command::Audit(command) => talk(common, async |session| audit::audit(session, command)),
        Command::Bench(command) => talk(common, async |session| bench::bench(session, command).await),
        Command::Doctor => talk(common, show::doctor),
        Command::Completions { shell } => completions(shell),
        Command::Worker { arguments } => up::worker(arguments),
    }
}

/// Runs a command that talks to the running node, or does without one.
fn talk(common: Common, work: impl AsyncFnOnce(&Session) -> Result<ExitCode, Stop>) -> Result<ExitCode, Stop> {
    let session = Session { data_dir: data_dir(&common)?, json: common.json };
    logging::init(&config::command_log(&environment)).map_err(CommandError::usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::failed)?;
    runtime.block_on(work(&session))
}

fn data_dir(common: &Common) -> Result<PathBuf, Stop> {
    Ok(config::data_dir(common.data_dir.as_deref(), &environment)?)
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "atmo", &mut script);
    print::bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// A file outside the data folder that holds the node's key.
fn key_file() -> Option<PathBuf> {
    environment("ATMO_NODE_KEY_FILE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The one place that reads the environment.
pub fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

#[cfg(test)]
mod tests;
