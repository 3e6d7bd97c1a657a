//! The web configuration file: errors and the rate limit.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::denial_of_service::send;
use crate::web_fixture::WebFixture;

#[test]
fn invalid_web_configuration_is_refused_at_startup() {
    let site = WebFixture::new();
    for (config, expected) in [
        ("tls_server_config:\n  cert_file: tls.crt\n", "key_file: missing"),
        ("tls_sever_config: {}\n", "tls_sever_config"),
        ("basic_auth_users:\n  a: b\n", "not a bcrypt hash"),
        ("basic_auth_users:\n  a:\n", "the value is missing"),
    ] {
        let error = site.error(config);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("web.yml"), "{error}");
    }
}

#[test]
fn requests_above_the_rate_limit_are_refused() {
    let site = WebFixture::new();
    let exporter = site.start("rate_limit:\n  interval: 1h\n  burst: 2\n", &[]);
    exporter.wait_for_at("/readyz", "a sample", |text| text.starts_with("ready"));
    // Probes are exempt: under a flood of scrapes, the kubelet would restart the exporter otherwise.
    assert!((0..100).all(|_| exporter.get("/healthz").status == 200));
    let statuses = [0; 3].map(|_| exporter.get("/metrics").status);
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!([exporter.get("/").status, exporter.get("/nothing").status], [429, 429]);
    assert_eq!([exporter.get("/healthz").status, exporter.get("/readyz").status], [200, 200]);
    // Readiness probes have a limit of their own; only the client that floods them uses it up.
    let probe = "GET /readyz HTTP/1.1\r\nHost: x\r\n";
    let flood = format!("{probe}\r\n").repeat(200) + probe + "Connection: close\r\n\r\n";
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    stream.write_all(flood.as_bytes()).unwrap();
    let mut responses = String::new();
    stream.read_to_string(&mut responses).unwrap();
    assert!(responses.matches("HTTP/1.1 429").count() > 100, "{responses}");
    let probe = format!("{probe}Connection: close\r\n\r\n");
    assert_eq!(send("127.0.0.3", exporter.address(), &probe).unwrap().status, 200);
    assert_eq!(exporter.get("/healthz").status, 200);
}
