//! The HTTP server: HTTP/1.1 with keep-alive and HTTP/2, with a bound on everything a stranger decides.
//!
//! A connection that sends its headers slowly is cut, headers are bounded in size and number, connections in number.
//!
//! It runs on threads of its own, each with a runtime of its own: a request, its client's connection and the engine's connection stay on
//! one thread, so that no byte waits for another thread to wake up. On two cores that halves what the node adds to a request.

use std::io;
use std::num::NonZero;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 4096;
/// A request's headers have this long to arrive, and a connection kept alive this long to send the next request.
const HEADERS_WAIT: Duration = Duration::from_secs(30);
/// Longest request line and headers together: twice what nginx and Apache take.
const HEADER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// After a failed `accept` (no file descriptors left), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A preface that came in part is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// Threads beyond this many serve nobody better: an engine is the bottleneck long before.
const THREADS_MAX: usize = 4;

/// Serves until `shutdown`, then lets running answers finish.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let started = listener.into_std().and_then(|listener| start(&listener, &router, &shutdown));
    match started {
        Ok(threads) => {
            for thread in threads {
                _ = thread.await;
            }
        }
        Err(error) => tracing::error!(%error, "the API cannot be served"),
    }
}

/// Half of the cores, so that engines and the mesh have theirs; each thread says when it has ended.
fn start(
    listener: &std::net::TcpListener,
    router: &Router,
    shutdown: &CancellationToken,
) -> io::Result<Vec<oneshot::Receiver<()>>> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let threads = (0..(cores / 2).clamp(1, THREADS_MAX)).map(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (listener, router, shutdown) = (listener.try_clone()?, router.clone(), shutdown.clone());
        let (places, (ended, ends)) = (Arc::clone(&places), oneshot::channel());
        std::thread::Builder::new().name("api".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(accept_all(listener, router, places, shutdown)) {
                tracing::error!(%error, "the API ended");
            }
            _ = ended.send(());
        })?;
        Ok(ends)
    });
    threads.collect()
}

async fn accept_all(
    listener: std::net::TcpListener,
    router: Router,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let builder = builder();
    // Nothing is sent: the last connection to end closes the channel.
    let (connected, mut all_ended) = mpsc::channel::<()>(1);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            (place, accepted) = async { (place.await, listener.accept().await) } => accepted.map(|(stream, _)| (place, stream)),
        };
        let (place, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let (service, builder) = (TowerToHyperService::new(router.clone()), builder.clone());
        let (connected, shutdown) = (connected.clone(), shutdown.clone());
        tokio::spawn(async move {
            // Until the first bytes tell which HTTP it speaks, no other limit holds, and nothing is under way that a stop would cut.
            let begun = tokio::select! {
                begun = tokio::time::timeout(HEADERS_WAIT, speaks(&stream)) => begun.is_ok(),
                () = shutdown.cancelled() => false,
            };
            if !begun {
                return;
            }
            let connection = pin!(builder.serve_connection(TokioIo::new(stream), service).into_owned());
            let ended = until_told(connection, &shutdown).await;
            drop(connected);
            if let Err(error) = ended {
                tracing::debug!(error, "a connection to the API ended");
            }
            drop(place);
        });
    }
    drop(connected);
    all_ended.recv().await;
    Ok(())
}

/// Serves a connection; once told to, until its answer under way is out.
async fn until_told<C: GracefulConnection>(mut connection: Pin<&mut C>, shutdown: &CancellationToken) -> Result<(), C::Error> {
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Resolves once enough has come to tell HTTP/2's preface (RFC 9113, section 3.4) from a request line, or the connection ended.
async fn speaks(stream: &TcpStream) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut first = [0; PREFACE.len()];
    while let Ok(read @ 1..) = stream.peek(&mut first).await {
        if read == PREFACE.len() || !PREFACE.starts_with(&first[..read]) {
            return;
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADERS_WAIT)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}
