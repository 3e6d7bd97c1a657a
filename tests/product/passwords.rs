//! Passwords that the HTTP server requires.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::exporter::{Exporter, Response};
use crate::web_fixture::{KeepAlive, WebFixture};

fn with_password(exporter: &Exporter, path: &str, user: &str, password: &str) -> Response {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    exporter.request(&format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn everything_but_probes_requires_a_password() {
    let site = WebFixture::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let config = format!(
        "basic_auth_users:\n  alice: {hash}\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    );
    let exporter = site.start(&config, &[]);
    let status = |user, password| with_password(&exporter, "/metrics", user, password).status;
    for _ in 0..2 {
        assert!(matches!(status("alice", "secret"), 200 | 503));
        assert_eq!((status("alice", "wrong"), status("bob", "secret")), (401, 401));
    }
    let response = exporter.get("/metrics");
    assert_eq!(response.status, 401);
    assert!(response.header("www-authenticate").unwrap().starts_with("basic realm="));
    assert_eq!(response.header("x-frame-options"), Some("deny"));
    assert_eq!(exporter.get("/nothing").status, 401, "not 404: paths are not disclosed");
    assert_eq!(exporter.get("/healthz").status, 200);
    let ready = exporter.get("/readyz").text();
    assert!(ready == "ready\n" || ready == "not ready\n", "{ready}");
    assert!(!exporter.log().contains("secret"), "{}", exporter.log());
}

#[test]
fn removed_user_has_no_access_on_an_open_connection() {
    let site = WebFixture::new();
    let users = |names: &[&str]| {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = names.iter().map(|name| format!("\n  {name}: {hash}"));
        format!("basic_auth_users:{}\n", users.collect::<String>())
    };
    let exporter = site.start(&users(&["alice", "bob"]), &["--web-read-timeout=1h"]);
    let mut connection = KeepAlive(TcpStream::connect(exporter.address()).unwrap());
    let mut status = |user: &str| {
        let encoded = STANDARD.encode(format!("{user}:secret"));
        connection.get("/", &format!("Authorization: Basic {encoded}\r\n")).unwrap().status
    };
    assert_eq!([status("alice"), status("bob")], [200, 200]);
    site.write("web.yml", &users(&["bob"]));
    exporter.wait_for_log("web.yml: reloaded");
    assert_eq!([status("alice"), status("bob")], [401, 200], "on the same connection");
}

#[test]
fn expensive_password_hash_does_not_delay_other_requests() {
    let site = WebFixture::new();
    // One check takes some seconds of CPU time.
    let hash = bcrypt::hash("secret", 4).unwrap().replace("$04$", "$15$");
    let exporter = site.start(&format!("basic_auth_users:\n  alice: {hash}\n"), &[]);
    let mut slow = TcpStream::connect(exporter.address()).unwrap();
    let encoded = STANDARD.encode("alice:secret");
    write!(slow, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\n\r\n")
        .unwrap();
    slow.set_nonblocking(true).unwrap();
    for _ in 0..10 {
        assert_eq!(exporter.get("/healthz").status, 200);
    }
    let early = slow.read(&mut [0; 16]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock, "it is still being checked");
}
