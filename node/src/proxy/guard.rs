//! Who may use the API, and how much of it at once.
//!
//! On loopback whoever can connect is the owner: a key is not asked for, and one that is known still limits. But a loopback port is open
//! to every page that a local browser shows, so a page of another origin is refused by its `Origin`, and one that points its own host name
//! at 127.0.0.1 (DNS rebinding) by the `Host` it asks for; programs send no `Origin` and a loopback `Host`, and notice nothing. On any
//! other address every request needs a key, from this machine too: a reverse proxy on it would open the API to everybody else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, HOST, ORIGIN, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::errors::ApiError;
use crate::audit::Event;
use crate::caller::Caller;
use crate::keys::{Denied, KEY_PREFIX, Key, Keys};

/// Where OpenAI's, Anthropic's and Azure's clients put a key.
const KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];

/// What pages of an allowed origin may read of an answer's headers.
const EXPOSED: &str = "x-atmo-node, x-atmo-capability, x-atmo-score, x-atmo-hops, retry-after, request-id";

/// What is asked of every request.
pub struct Guard {
    pub keys: Arc<Keys>,
    /// Whether the API listens beyond loopback.
    pub keys_only: bool,
    /// Web pages of these origins may use the API.
    pub origins: Vec<String>,
    /// Requests under way at once.
    pub places: Arc<Semaphore>,
}

/// Somebody whose request was let in. In the extensions of the request.
#[derive(Clone)]
pub struct Visitor {
    pub caller: Caller,
    key: Option<Arc<Key>>,
    /// Of the key: taken until the last who holds it is done, be it the answer or a job.
    place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Visitor {
    /// The place that the visitor's key has taken, for work that goes on behind the answer.
    pub fn place(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        self.place.clone()
    }

    /// Whether requests for this model are allowed.
    pub fn may_use(&self, model: &str) -> bool {
        self.key.as_ref().is_none_or(|key| key.allows(model))
    }

    /// Ends the visitor's work when its key is revoked.
    pub fn lease(&self) -> CancellationToken {
        self.key.as_ref().map(|key| key.revoked()).unwrap_or_default()
    }

    /// The only models allowed, where not all are.
    pub fn models(&self) -> &[String] {
        self.key.as_ref().map_or(&[], |key| &key.stored.limits.models)
    }
}

/// Lets a request in, with its [`Visitor`], or says why not. A place is held until the last byte of the answer is out.
pub async fn admit(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let (key, place_of_key) = match guard.check(request.headers(), request.uri().authority()) {
        Ok(checked) => checked,
        Err(error) => return error.into_response(),
    };
    let Ok(place) = Arc::clone(&guard.places).try_acquire_owned() else { return ApiError::too_many().into_response() };
    let mut revoked = key.as_ref().map(|key| Box::pin(key.revoked().cancelled_owned()));
    let caller = key.as_ref().map_or(Caller::Owner, |key| key.caller());
    let place_of_key = place_of_key.map(Arc::new);
    request.extensions_mut().insert(Visitor { caller, key, place: place_of_key.clone() });
    let response = match &mut revoked {
        None => next.run(request).await,
        Some(revoked) => tokio::select! {
            response = next.run(request) => response,
            () = revoked.as_mut() => return ApiError::wrong_key().into_response(),
        },
    };
    response.map(|body| Body::new(Holding { body, revoked, _places: (place, place_of_key) }))
}

/// Tells browsers which pages may use the API, and answers their question before a request.
pub async fn cross_origin(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).filter(|origin| guard.allows(origin.to_str().unwrap_or_default())).cloned();
    let preflight = request.method() == Method::OPTIONS && origin.is_some();
    let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(VARY, HeaderValue::from_static("origin"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        if preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            wanted.map(|wanted| headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted));
        }
    }
    response
}

/// Refuses what no page and no host name may ask, for paths that need no key.
pub async fn local_names_only(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check_names(request.headers(), request.uri().authority()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

impl Guard {
    #[allow(clippy::type_complexity, reason = "a key and its place belong together, and a third name for the pair says less")]
    fn check(
        &self,
        headers: &HeaderMap,
        authority: Option<&Authority>,
    ) -> Result<(Option<Arc<Key>>, Option<OwnedSemaphorePermit>), ApiError> {
        self.check_names(headers, authority)?;
        let given = key_in(headers);
        let key = given.and_then(|text| self.keys.find(text));
        match (&key, given) {
            (None, None) if self.keys_only => return Err(self.refused(None, "no key", ApiError::no_key())),
            // Clients send any text where a key must be; one of ours that is no more means its holder no good.
            (None, Some(text)) if self.keys_only || text.starts_with(KEY_PREFIX) => {
                return Err(self.refused(None, "wrong or revoked key", ApiError::wrong_key()));
            }
            _ => {}
        }
        let place = key.as_ref().map(|key| key.admit().map_err(|denied| self.denied(key, denied))).transpose()?;
        if let Some(key) = &key {
            self.keys.note_use(key);
        }
        Ok((key, place))
    }

    fn denied(&self, key: &Key, denied: Denied) -> ApiError {
        match denied {
            Denied::TooOften { retry_after } => self.refused(Some(key), "too often", ApiError::rate_limited(retry_after)),
            Denied::TooManyAtOnce { max } => self.refused(Some(key), "too many at once", ApiError::too_many_of_key(max)),
        }
    }

    /// Records that a request was turned away, and why.
    fn refused(&self, key: Option<&Key>, reason: &'static str, error: ApiError) -> ApiError {
        let caller = key.map(Key::caller);
        self.keys.audit().note(Event::key_refused(caller.as_ref(), reason));
        error
    }

    fn check_names(&self, headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), ApiError> {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
        let origin = text(ORIGIN);
        if origin.is_some_and(|origin| self.allows(origin)) {
            return Ok(());
        }
        // Where a request names its authority itself, `Host` counts for nothing (RFC 9112, section 3.2.2).
        let host = authority.map(Authority::as_str).or_else(|| text(HOST));
        check_names(host, origin, self.keys_only).map_err(ApiError::forbidden)
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == origin || allowed == "*")
    }
}

fn key_in(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let named = || KEY_HEADERS.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    bearer.map(|(_, key)| key.trim()).or_else(named)
}

fn check_names(host: Option<&str>, origin: Option<&str>, keys_only: bool) -> Result<(), String> {
    let host = host.ok_or("the request names no host")?;
    // Beyond loopback this machine has names that are not known here, and a page has no key.
    if !keys_only && !is_loopback(host) {
        return Err(format!("this API answers to localhost, not to the host `{host}`"));
    }
    match origin {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => Err(format!(
            "web pages of another origin (`{origin}`) may not use this API; `api_origins` in the configuration allows some"
        )),
        _ => Ok(()),
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A body that holds places for as long as it is being sent, and ends in the middle when its key is revoked.
struct Holding {
    body: Body,
    revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _places: (OwnedSemaphorePermit, Option<Arc<OwnedSemaphorePermit>>),
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(revoked) = &mut self.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(axum::Error::new("the key was revoked"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_pass_and_foreign_pages_do_not() {
        let check = |host, origin| check_names(host, origin, false);
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
            assert!(check_names(Some("box.lan:1"), Some(origin), true).is_err(), "{origin}");
        }
        assert_eq!(check_names(Some("box.lan:1"), None, true), Ok(()));
    }

    #[test]
    fn a_key_is_found_wherever_a_client_puts_it() {
        for (name, value, key) in [
            ("authorization", "Bearer k", Some("k")),
            ("authorization", "bearer  k ", Some("k")),
            ("authorization", "Basic k", None),
            ("x-api-key", "k", Some("k")),
            ("api-key", "k", Some("k")),
            ("x-key", "k", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(key_in(&headers), key, "{name}: {value}");
        }
    }
}
