//! Keeps web pages out: a loopback port is open to every page that a local browser shows.
//!
//! A page of another origin is refused by its `Origin`; a page that points its own host name at 127.0.0.1 (DNS rebinding) by the `Host`
//! it asks for. Programs send no `Origin` and a loopback `Host`, and notice nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::ApiError;

/// Passes on requests to a loopback `Host` that come from no web page, or from one of this very origin.
pub async fn local_only(request: Request, next: Next) -> Response {
    match check_request(&request) {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::forbidden(why).into_response(),
    }
}

fn check_request(request: &Request) -> Result<(), String> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let host = header(HOST).or_else(|| request.uri().authority().map(Authority::as_str));
    check(host, header(ORIGIN))
}

/// Lets a bounded number of requests in; a place is held until the last byte of the answer is out.
pub async fn bounded(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(place) = places.try_acquire_owned() else { return ApiError::too_many().into_response() };
    next.run(request).await.map(|body| Body::new(Holding { body, _place: place }))
}

/// A body that holds a place for as long as it is being sent.
struct Holding {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn check(host: Option<&str>, origin: Option<&str>) -> Result<(), String> {
    let host = host.ok_or("the request names no host")?;
    if !is_loopback(host) {
        return Err(format!("this API answers to localhost, not to the host `{host}`"));
    }
    match origin {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => {
            Err(format!("web pages of another origin (`{origin}`) may not use this API"))
        }
        _ => Ok(()),
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn programs_pass_and_foreign_pages_do_not() {
        for host in ["127.0.0.1:11451", "localhost:11451", "[::1]:11451", "LOCALHOST", "127.0.0.2"] {
            assert_eq!(check(Some(host), None), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:11451", "127.0.0.1.evil.example", "10.0.0.1", "", "local host"] {
            assert!(check(Some(host), None).is_err(), "{host}");
        }
        assert!(check(None, None).is_err());
        assert_eq!(check(Some("localhost:1"), Some("http://localhost:1")), Ok(()));
        for origin in ["http://evil.example", "null", "http://localhost:2", "https://localhost:1", ""] {
            assert!(check(Some("localhost:1"), Some(origin)).is_err(), "{origin}");
        }
    }
}
