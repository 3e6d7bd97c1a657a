//! Servers that fail.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    kubelet::{Empty, Listed},
    stage::{PATIENCE, Stage, eventually},
};

/// A node with a pod, of which a server fails from 10 s to 20 s.
fn scene(now: u32, source: &str, effect: &str) -> String {
    format!(
        "now = {now}\n[GPUS]\n[[pod]]\nname = \"p\"\ncontainers = [{{ name = \"c\" }}]\n\
         [[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\nfrom = 10\nto = 20\n"
    )
}

fn list(stage: &Stage) -> Result<Listed, tonic::Status> {
    stage.call("List", Empty {})
}

#[test]
fn a_kubelet_that_refuses_says_why() {
    for (effect, code) in [
        ("denied", Code::PermissionDenied),
        ("throttled", Code::ResourceExhausted),
        // It cannot be decoded.
        ("garbage", Code::Internal),
    ] {
        let stage = Stage::playing(&scene(10, "kubelet", effect));
        assert_eq!(list(&stage).unwrap_err().code(), code, "{effect}");
        stage.play(&scene(20, "kubelet", effect));
        eventually("it answers again", || list(&stage).is_ok_and(|listed| listed.pods.len() == 1));
    }
}

#[test]
fn a_kubelet_that_is_not_there_comes_back() {
    for (effect, kind) in
        [("absent", ErrorKind::NotFound), ("refuse", ErrorKind::ConnectionRefused)]
    {
        let stage = Stage::playing(&scene(10, "kubelet", effect));
        assert_eq!(UnixStream::connect(stage.socket()).unwrap_err().kind(), kind, "{effect}");
        stage.play(&scene(20, "kubelet", effect));
        eventually("it answers", || list(&stage).is_ok());
        stage.play(&scene(10, "kubelet", effect));
        eventually("it has gone again", || {
            UnixStream::connect(stage.socket()).is_err_and(|error| error.kind() == kind)
        });
    }
}

#[test]
fn a_kubelet_that_closes_connections_lets_nobody_in() {
    let stage = Stage::playing(&scene(10, "kubelet", "close"));
    let mut stream = UnixStream::connect(stage.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "it was closed");
    assert!(list(&stage).is_err());
}

#[test]
fn a_hung_server_answers_when_it_has_recovered() {
    for effect in ["hang", "slow"] {
        let stage = Stage::playing(&scene(10, "api", effect));
        let mut stream = TcpStream::connect(("127.0.0.1", stage.port())).unwrap();
        write!(stream, "GET /api/v1/pods HTTP/1.0\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let early = stream.read(&mut [0; 16]).unwrap_err().kind();
        assert!(matches!(early, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{effect}: {early}");
        stage.play(&scene(20, "api", effect));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.0 200"), "{effect}: {text}");
    }
    let stage = Stage::playing(&scene(10, "kubelet", "hang"));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| list(&stage));
        stage.play(&scene(20, "kubelet", "hang"));
        assert_eq!(call.join().unwrap().unwrap().pods.len(), 1);
    });
}

#[test]
fn an_api_server_that_refuses_says_why() {
    for (effect, status) in [("denied", 403), ("throttled", 429)] {
        let stage = Stage::playing(&scene(10, "api", effect));
        let answer = stage.get("/api/v1/pods");
        assert_eq!(answer.status, status);
        assert_eq!(answer.head.contains("retry-after: 1"), status == 429, "{}", answer.head);
        assert_eq!(answer.json()["code"], status);
    }
    let stage = Stage::playing(&scene(10, "api", "garbage"));
    let text = stage.get("/api/v1/pods").text();
    assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
}

#[test]
fn an_api_server_that_goes_away_ends_its_watches_and_has_the_same_port_again() {
    for effect in ["absent", "refuse", "close"] {
        let stage = Stage::playing(&scene(0, "api", effect));
        let port = stage.port();
        let mut watch = stage.get("/api/v1/pods?watch=true");
        assert_eq!(watch.news(), "ADDED p");
        stage.play(&scene(10, "api", effect));
        assert_eq!(watch.line(), None, "{effect}");
        if effect == "absent" {
            eventually("the kubeconfig is gone", || !stage.path("kubeconfig").exists());
        } else {
            eventually("nobody is let in", || stage.try_get("/api/v1/pods").is_err());
        }
        stage.play(&scene(20, "api", effect));
        eventually("it answers", || {
            stage.path("kubeconfig").exists()
                && stage.try_get("/api/v1/pods").is_ok_and(|answer| answer.status == 200)
        });
        assert_eq!(stage.port(), port, "{effect}");
    }
}

#[test]
fn an_open_watch_hears_of_garbage_and_of_a_lost_history() {
    let stage = Stage::playing(&scene(0, "api", "expired"));
    let mut watch = stage.get("/api/v1/pods?watch=true");
    assert_eq!(watch.news(), "ADDED p");
    stage.play(&scene(10, "api", "expired"));
    let (kind, status) = watch.event().unwrap();
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(watch.line(), None);
    assert_eq!(stage.pods().len(), 1, "lists are answered");

    let stage = Stage::playing(&scene(0, "api", "garbage"));
    let mut watch = stage.get("/api/v1/pods?watch=true");
    assert_eq!(watch.news(), "ADDED p");
    stage.play(&scene(10, "api", "garbage"));
    let line = watch.line().unwrap();
    assert!(serde_json::from_str::<Value>(&line).is_err(), "{line}");
}

#[test]
fn nonsense_on_the_wire_harms_nobody() {
    let stage = Stage::playing(&scene(0, "api", "hang"));
    for bytes in [
        &b"\0\xff\xfe\n\n\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
    ] {
        for stream in [
            &mut TcpStream::connect(("127.0.0.1", stage.port())).unwrap() as &mut dyn Write,
            &mut UnixStream::connect(stage.socket()).unwrap(),
        ] {
            stream.write_all(bytes).unwrap();
        }
    }
    let mut post = TcpStream::connect(("127.0.0.1", stage.port())).unwrap();
    write!(post, "DELETE /api/v1/pods HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    post.set_read_timeout(Some(PATIENCE)).unwrap();
    post.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.0 405"), "{text}");
    assert_eq!(stage.pods().len(), 1);
    assert_eq!(list(&stage).unwrap().pods.len(), 1);
}
