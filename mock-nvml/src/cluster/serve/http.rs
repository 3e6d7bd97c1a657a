//! The API server's port: HTTP/1.1, lists and watches of pods and of the node, and what one may ask for.

mod ask;
mod review;

use std::{convert::Infallible, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::ask::{Ask, Refusal, Start, Watch};
use super::{
    super::{
        api::{self, Unknown},
        slices,
    },
    door::Stream,
    keeper::Keeper,
    reply::Reply,
};
use crate::scenario::cluster::{Server, Trouble};

/// How often a watch that wants them gets a bookmark.
const BOOKMARK: Duration = Duration::from_secs(60);
/// How many lines of a watch wait for a client that does not read.
const WAITING: usize = 16;

/// Serves one connection to its end.
pub(super) async fn connection(stream: Pin<Box<dyn Stream>>, keeper: Rc<Keeper>) {
    let service = service_fn(move |request| answer(Rc::clone(&keeper), request));
    let mut builder = http1::Builder::new();
    // A client that breaks off or speaks something else ends its connection, and that is all.
    let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    keeper: Rc<Keeper>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    Ok(match keeper.delay(Server::Api).await {
        Some(Trouble::Denied) => {
            let said = "this is forbidden: this user cannot list the resource in API group \
                        \"\" at the cluster scope";
            refuse(&Refusal { code: 403, reason: "Forbidden", said: said.into() })
        }
        Some(Trouble::Throttled) => {
            let said = "too many requests: try again later";
            refuse(&Refusal { code: 429, reason: "TooManyRequests", said: said.into() })
        }
        Some(Trouble::Garbage) => json(
            StatusCode::OK,
            "{\"kind\":\"PodList\",\"items\":[{\"metadata\":\u{0}\n".to_owned(),
        ),
        trouble => {
            let (scenario, now) = keeper.refresh();
            let cluster = scenario.cluster.as_deref();
            let streaming = cluster.is_none_or(|cluster| cluster.streaming_lists);
            let node = cluster.map(|cluster| cluster.node.as_str()).unwrap_or_default();
            let asked = if request.method() == Method::GET {
                let uri = request.uri();
                Ask::read(uri.path(), uri.query().unwrap_or_default(), node, streaming)
            } else if request.method() == Method::POST && request.uri().path() == review::PATH {
                Ok(Ask::Review)
            } else {
                let said = "the server does not allow this method on the requested resource";
                Err(Refusal { code: 405, reason: "MethodNotAllowed", said: said.into() })
            };
            let asked = asked.and_then(|ask| review::permitted(ask, cluster));
            match asked {
                Err(refusal) => refuse(&refusal),
                Ok(Ask::Review) => match review::answer(request.into_body(), cluster).await {
                    Ok(answer) => json(StatusCode::CREATED, answer.to_string()),
                    Err(refusal) => refuse(&refusal),
                },
                Ok(Ask::Version) => json(StatusCode::OK, version().to_string()),
                Ok(Ask::Slices) => {
                    let list = slices::list(cluster, &scenario.gpus, now.world);
                    json(StatusCode::OK, list.to_string())
                }
                Ok(Ask::List { kind, chosen }) => {
                    let list = keeper.history(kind, |history| history.list(chosen));
                    json(StatusCode::OK, list.to_string())
                }
                Ok(Ask::Watch(watch)) => begin(keeper, watch, trouble),
            }
        }
    })
}

fn version() -> Value {
    json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64" })
}

fn json(status: StatusCode, text: String) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refuse(refusal: &Refusal) -> Response<Reply> {
    let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let said = api::refusal(refusal.code, refusal.reason, &refusal.said);
    let mut response = json(status, said.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn begin(keeper: Rc<Keeper>, watch: Watch, trouble: Option<Trouble>) -> Response<Reply> {
    let first = keeper.history(watch.kind, |history| first(history, &watch));
    let (lines, version) = match first {
        Ok(first) => first,
        Err(Unknown::Future(newest)) => {
            let said = format!("Too large resource version, current: {newest}");
            return refuse(&Refusal { code: 504, reason: "Timeout", said });
        }
        // The server has said yes before it looks into its history.
        Err(Unknown::Gone(oldest)) => (vec![expired(&watch, oldest)], None),
    };
    let version = version.filter(|_| trouble != Some(Trouble::Expired));
    let (sender, more) = mpsc::channel(WAITING);
    tokio::task::spawn_local(async move {
        // Who does not listen any more needs no more lines.
        let _ = follow(&keeper, &watch, lines, version, &sender).await;
    });
    let mut response = Response::new(Reply::stream(more));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

type First = (Vec<Arc<str>>, Option<u64>);

/// The lines with which a watch begins, and the version up to which they tell.
fn first(history: &api::History, watch: &Watch) -> Result<First, Unknown> {
    let lines = match watch.start {
        Start::Initial { ends } => {
            let mut lines = if watch.chosen { history.initial() } else { vec![] };
            if ends {
                lines.push(history.bookmark(true));
            }
            lines
        }
        Start::After(version) => {
            let events = history.since(version)?;
            events.into_iter().filter(|_| watch.chosen).map(|event| event.line).collect()
        }
    };
    Ok((lines, Some(history.version())))
}

fn expired(watch: &Watch, oldest: u64) -> Arc<str> {
    let said = match watch.start {
        Start::After(version) => format!("too old resource version: {version} ({oldest})"),
        Start::Initial { .. } => "the history of this watch is gone".to_owned(),
    };
    api::line("ERROR", &api::refusal(410, "Expired", &said))
}

/// Nobody listens any more.
struct Left;

async fn follow(
    keeper: &Keeper,
    watch: &Watch,
    lines: Vec<Arc<str>>,
    version: Option<u64>,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), Left> {
    let send = |line: Arc<str>| async move {
        sender.send(Bytes::copy_from_slice(line.as_bytes())).await.map_err(|_| Left)
    };
    let end = tokio::time::sleep(watch.timeout);
    tokio::pin!(end);
    let mut bookmarks = tokio::time::interval(BOOKMARK);
    bookmarks.reset();
    let mut changes = keeper.changes();
    for line in lines {
        send(line).await?;
    }
    let Some(mut version) = version else {
        let trouble = keeper.trouble(Server::Api);
        return if trouble == Some(Trouble::Expired) {
            send(expired(watch, 0)).await
        } else {
            Ok(())
        };
    };
    loop {
        match keeper.trouble(Server::Api) {
            Some(Trouble::Hang) => {}
            Some(Trouble::Expired) => return send(expired(watch, version)).await,
            Some(Trouble::Garbage) => {
                return send("{\"type\":\"ADDED\",\"object\":\n".into()).await;
            }
            _ => {
                let events = match keeper.history(watch.kind, |history| history.since(version)) {
                    Ok(events) => events,
                    Err(Unknown::Gone(oldest) | Unknown::Future(oldest)) => {
                        return send(expired(watch, oldest)).await;
                    }
                };
                for event in events {
                    version = event.version;
                    if watch.chosen {
                        send(event.line).await?;
                    }
                }
            }
        }
        tokio::select! {
            () = &mut end => return Ok(()),
            () = sender.closed() => return Err(Left),
            _ = changes.changed() => {}
            _ = bookmarks.tick(), if watch.bookmarks => {
                send(keeper.history(watch.kind, |history| history.bookmark(false))).await?;
            }
        }
    }
}
