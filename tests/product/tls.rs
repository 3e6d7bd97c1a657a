//! TLS of the HTTP server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::web_fixture::{TLS, WebFixture, der};

const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn tls_certificate_is_reloaded_for_new_connections() {
    let site = WebFixture::new();
    let first = site.renew();
    let exporter = site.start(TLS, &[]);
    let certificate = || site.get(&exporter, "/healthz", None).unwrap().1;
    assert_eq!(certificate(), der(&first.cert).to_vec());
    let (metrics, _) = site.get(&exporter, "/metrics", None).unwrap();
    assert!(metrics.status == 200 || metrics.status == 503, "503 before the first cycle");

    // The key does not match the certificate, as between the replacements of the two files.
    let other = site.sign("localhost");
    site.write("tls.key", &other.key);
    exporter.wait_for_log("the previous configuration stays active");
    assert_eq!(certificate(), der(&first.cert).to_vec());
    let second = site.renew();
    exporter.wait_for_log("web.yml: reloaded");
    assert_eq!(certificate(), der(&second.cert).to_vec());

    // Plain HTTP has no response and does not affect other connections.
    let mut plain = TcpStream::connect(exporter.address()).unwrap();
    plain.set_read_timeout(Some(TIMEOUT)).unwrap();
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut response = Vec::new();
    let _ = plain.read_to_end(&mut response);
    assert!(!response.starts_with(b"HTTP"), "{response:?}");
    assert_eq!(certificate(), der(&second.cert).to_vec());
}

/// A certificate of X.509 version 1.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBFTCBvQIUb0o5fHm80il8UmLlNPSX2n8Zz7YwCgYIKoZIzj0EAwIwDTELMAkG\n\
A1UEAwwCdjEwIBcNMjYxMTMwMDgxOTM0WhgPMjEyNjExMDYwODE5MzRaMA0xCzAJ\n\
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEk0HbWyiFLc2gqZtn\n\
vZu1coV0BlPoruFvovn9NQn48GFVjuwVZ8V4W64fzUynfuhgnD6pJIBsARm3HzU8\n\
iOkuUDAKBggqhkjOPQQDAgNHADBEAiABD8TCVK0f5KyM/FBxb0eeXNj5N0wItteE\n\
Cn9jOkDMwwIgcm3N5R0+ER0uT1VVY9Q7h8Z5CsOvku9VSX9civ7y5H8=\n\
-----END CERTIFICATE-----\n\
";

/// A self-signed CA certificate with a P-521 key.
const P521_CERT: &str = "-----BEGIN CERTIFICATE-----\n\
MIIB9zCCAVigAwIBAgIUIqmek1PQI3QDhWqsnQpXUKqjDBAwCgYIKoZIzj0EAwIw\n\
DDEKMAgGA1UEAwwBcDAgFw0yNjExMzAwODE5MzRaGA8yMTI2MTEwNjA4MTkzNFow\n\
DDEKMAgGA1UEAwwBcDCBmzAQBgcqhkjOPQIBBgUrgQQAIwOBhgAEAeh1Y7wLzUV7\n\
cuqTx6txWjKE1nxyxh9Ws5Gf4vhvKYPcpg9BsIIhYZXplEaS0lR29B7YCG/ZR+wI\n\
uP3E6COR90x5AFUucPmXZ8/O6HhXQwH4Hy6o1dl+OIVmQDk6UO5V6dqQabEQV3Ar\n\
H0GAAmUAlmGFHUWtJfKbbx+m0hR7IlywlCURo1MwUTAdBgNVHQ4EFgQULkcymFiW\n\
HJXbF3q3D7LTK/vALvowHwYDVR0jBBgwFoAULkcymFiWHJXbF3q3D7LTK/vALvow\n\
DwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgOBjAAwgYgCQgHLkasrQ/iLcnhP\n\
YSoM4IlU6nLCaPvJ7pOkHCMwzC1+RV14VKKIQQ+wzxpjBGgFkl4+EGRYIpfR5Iji\n\
Ves5o8FUPAJCAf25YBdzUplI+GgtGLRdfZsmyJ8BHg34JbK7xSfAZdT9m7F/E6RR\n\
CFkLSEdL1a3ZuY242nZWvjAl1ERJMIjMHAPo\n\
-----END CERTIFICATE-----\n\
";

/// Its key.
const P521_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBMay0Phejh/SurVS6\n\
52M/ymdNWMhs6jyAWPcWyS3OAak2zXwHTvGi+5ZVkRaFXRgsgqnGcutBHDGUaNAV\n\
PPwnKcKhgYkDgYYABAHodWO8C81Fe3Lqk8ercVoyhNZ8csYfVrORn+L4bymD3KYP\n\
QbCCIWGV6ZRGktJUdvQe2Ahv2UfsCLj9xOgjkfdMeQBVLnD5l2fPzuh4V0MB+B8u\n\
qNXZfjiFZkA5OlDuVenakGmxEFdwKx9BgAJlAJZhhR1FrSXym28fptIUeyJcsJQl\n\
EQ==\n\
-----END PRIVATE KEY-----\n\
";

#[test]
fn unsupported_tls_is_refused_with_its_reason() {
    let site = WebFixture::new();
    site.write("v1.crt", VERSION_1);
    site.write("p521.crt", P521_CERT);
    site.write("p521.key", P521_KEY);
    let client_ca = |file: &str| {
        let auth = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ";
        format!("{TLS}{auth}{file}\n")
    };
    for (config, expected) in [
        (TLS.replace("tls.crt", "v1.crt"), "cert_file: a certificate of X.509 version 1"),
        (TLS.replace("tls.", "p521."), "key_file: keys of the curve P-521 are not supported"),
        (client_ca("p521.crt"), "client_ca_file: keys of the curve P-521"),
        (client_ca("v1.crt"), "client_ca_file: a certificate of X.509 version 1"),
        (
            format!("{TLS}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n"),
            "cipher suites with CBC are insecure",
        ),
        (format!("{TLS}  curve_preferences: [CurveP521]\n"), "unknown value CurveP521"),
    ] {
        let error = site.error(&config);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
