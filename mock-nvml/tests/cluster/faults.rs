//! Injected faults of the servers.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    kubelet::{Empty, ListResponse},
    mock_env::{MockEnv, TIMEOUT, eventually},
};

/// A node with a pod and a server that fails from 10 s to 20 s.
fn scenario_at(now: u32, source: &str, effect: &str) -> String {
    format!(
        "now = {now}\n[GPUS]\n[[pod]]\nname = \"p\"\ncontainers = [{{ name = \"c\" }}]\n\
         [[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\nfrom = 10\nto = 20\n"
    )
}

fn list(env: &MockEnv) -> Result<ListResponse, tonic::Status> {
    env.call("List", Empty {})
}

#[test]
fn refusing_kubelet_returns_a_status() {
    for (effect, code) in [
        ("denied", Code::PermissionDenied),
        ("throttled", Code::ResourceExhausted),
        // The response cannot be decoded.
        ("garbage", Code::Internal),
    ] {
        let env = MockEnv::with_tables(&scenario_at(10, "kubelet", effect));
        assert_eq!(list(&env).unwrap_err().code(), code, "{effect}");
        env.write_tables(&scenario_at(20, "kubelet", effect));
        eventually("the kubelet responds again", || {
            list(&env).is_ok_and(|listed| listed.pods.len() == 1)
        });
    }
}

#[test]
fn absent_kubelet_comes_back() {
    for (effect, kind) in
        [("absent", ErrorKind::NotFound), ("refuse", ErrorKind::ConnectionRefused)]
    {
        let env = MockEnv::with_tables(&scenario_at(10, "kubelet", effect));
        let is_absent =
            || UnixStream::connect(env.socket()).is_err_and(|error| error.kind() == kind);
        eventually("the kubelet is absent", is_absent);
        env.write_tables(&scenario_at(20, "kubelet", effect));
        eventually("the kubelet responds", || list(&env).is_ok());
        env.write_tables(&scenario_at(10, "kubelet", effect));
        eventually("the kubelet is absent again", is_absent);
    }
}

#[test]
fn kubelet_closes_connections() {
    let env = MockEnv::with_tables(&scenario_at(10, "kubelet", "close"));
    let mut stream = UnixStream::connect(env.socket()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "the connection was closed");
    assert!(list(&env).is_err());
}

#[test]
fn hung_server_responds_after_recovery() {
    for effect in ["hang", "slow"] {
        let env = MockEnv::with_tables(&scenario_at(10, "api", effect));
        let mut stream = TcpStream::connect(("127.0.0.1", env.port())).unwrap();
        write!(stream, "GET /api/v1/pods HTTP/1.0\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let early = stream.read(&mut [0; 16]).unwrap_err().kind();
        assert!(matches!(early, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{effect}: {early}");
        env.write_tables(&scenario_at(20, "api", effect));
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.0 200"), "{effect}: {text}");
    }
    let env = MockEnv::with_tables(&scenario_at(10, "kubelet", "hang"));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| list(&env));
        env.write_tables(&scenario_at(20, "kubelet", "hang"));
        assert_eq!(call.join().unwrap().unwrap().pods.len(), 1);
    });
}

#[test]
fn refusing_api_server_returns_a_status() {
    for (effect, status) in [("denied", 403), ("throttled", 429)] {
        let env = MockEnv::with_tables(&scenario_at(10, "api", effect));
        let response = env.get("/api/v1/pods");
        assert_eq!(response.status, status);
        assert_eq!(response.head.contains("retry-after: 1"), status == 429, "{}", response.head);
        assert_eq!(response.json()["code"], status);
    }
    let env = MockEnv::with_tables(&scenario_at(10, "api", "garbage"));
    let text = env.get("/api/v1/pods").text();
    assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
}

#[test]
fn absent_api_server_ends_its_watches_and_keeps_its_port() {
    for effect in ["absent", "refuse", "close"] {
        let env = MockEnv::with_tables(&scenario_at(0, "api", effect));
        let port = env.port();
        let mut watch = env.get("/api/v1/pods?watch=true");
        assert_eq!(watch.event_summary(), "ADDED p");
        env.write_tables(&scenario_at(10, "api", effect));
        assert_eq!(watch.line(), None, "{effect}");
        if effect == "absent" {
            eventually("the kubeconfig is gone", || !env.path("kubeconfig").exists());
        } else {
            eventually("connections are refused", || env.try_get("/api/v1/pods").is_err());
        }
        env.write_tables(&scenario_at(20, "api", effect));
        eventually("the API server responds", || {
            env.path("kubeconfig").exists()
                && env.try_get("/api/v1/pods").is_ok_and(|response| response.status == 200)
        });
        assert_eq!(env.port(), port, "{effect}");
    }
}

#[test]
fn open_watch_receives_invalid_data_and_expiry() {
    let env = MockEnv::with_tables(&scenario_at(0, "api", "expired"));
    let mut watch = env.get("/api/v1/pods?watch=true");
    assert_eq!(watch.event_summary(), "ADDED p");
    env.write_tables(&scenario_at(10, "api", "expired"));
    let (kind, status) = watch.event().unwrap();
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(watch.line(), None);
    assert_eq!(env.pods().len(), 1, "lists still work");

    let env = MockEnv::with_tables(&scenario_at(0, "api", "garbage"));
    let mut watch = env.get("/api/v1/pods?watch=true");
    assert_eq!(watch.event_summary(), "ADDED p");
    env.write_tables(&scenario_at(10, "api", "garbage"));
    let line = watch.line().unwrap();
    assert!(serde_json::from_str::<Value>(&line).is_err(), "{line}");
}

#[test]
fn invalid_requests_do_not_affect_other_clients() {
    let env = MockEnv::with_tables(&scenario_at(0, "api", "hang"));
    for bytes in [
        &b"\0\xff\xfe\n\n\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
    ] {
        for stream in [
            &mut TcpStream::connect(("127.0.0.1", env.port())).unwrap() as &mut dyn Write,
            &mut UnixStream::connect(env.socket()).unwrap(),
        ] {
            stream.write_all(bytes).unwrap();
        }
    }
    let mut post = TcpStream::connect(("127.0.0.1", env.port())).unwrap();
    write!(post, "DELETE /api/v1/pods HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    post.set_read_timeout(Some(TIMEOUT)).unwrap();
    post.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.0 405"), "{text}");
    assert_eq!(env.pods().len(), 1);
    assert_eq!(list(&env).unwrap().pods.len(), 1);
}
