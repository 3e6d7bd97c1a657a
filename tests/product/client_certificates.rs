//! Client certificates that the HTTP server requires.

use std::io::Read;

use rcgen::{CertificateParams, SanType};

use crate::exporter::run_with;
use crate::web_fixture::{CertificateAndKey, KeepAlive, TLS, WebFixture};

#[test]
fn client_certificates_are_verified() {
    let site = WebFixture::new();
    let config = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&config, &[]);
    let get = |client: Option<&CertificateAndKey>| site.get(&exporter, "/healthz", client);
    assert_eq!(get(Some(&site.sign("scraper.example"))).unwrap().0.status, 200);
    for other in ["other.example", "*.example", "Scraper.Example", "scraper.example.org"] {
        assert!(get(Some(&site.sign(other))).is_err(), "{other}");
    }
    assert!(get(Some(&WebFixture::new().sign("scraper.example"))).is_err(), "another CA");
    assert!(get(None).is_err(), "no certificate");
}

#[test]
fn every_kind_of_name_of_a_client_certificate_is_compared_exactly() {
    let site = WebFixture::new();
    let allowed = |names: &str| {
        format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             client_allowed_sans: {names}\n"
        )
    };
    let config = allowed("['*.lab.example', scraper@a.example, 10.0.0.1, 'fd00::1', 'urn:x:y']");
    let exporter = site.start(&config, &[]);
    let is_accepted = |name: SanType| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("other".try_into().unwrap()), name];
        site.get(&exporter, "/healthz", Some(&site.sign_params(&params))).is_ok()
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let email = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let ip = |name: &str| SanType::IpAddress(name.parse().unwrap());
    for name in [
        dns("*.lab.example"),
        email("scraper@a.example"),
        uri("urn:x:y"),
        ip("10.0.0.1"),
        ip("fd00::1"),
    ] {
        assert!(is_accepted(name.clone()), "{name:?}");
    }
    for name in [
        dns("a.lab.example"),
        email("other@a.example"),
        uri("urn:x:z"),
        ip("10.0.0.2"),
        ip("fd00::2"),
        dns("10.0.0.1"),
    ] {
        // The same text as a name of another kind is allowed, as in Go.
        assert_eq!(is_accepted(name.clone()), name == dns("10.0.0.1"), "{name:?}");
    }
    // An empty list allows no name.
    let exporter = site.start(&allowed("[]"), &[]);
    assert!(site.get(&exporter, "/healthz", Some(&site.sign("a.example"))).is_err());
}

#[test]
fn optional_client_certificate_has_an_allowed_name() {
    let site = WebFixture::new();
    let config = format!(
        "{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&config, &[]);
    let get = |client: Option<&CertificateAndKey>| site.get(&exporter, "/healthz", client);
    assert_eq!(get(None).unwrap().0.status, 200);
    assert_eq!(get(Some(&site.sign("scraper.example"))).unwrap().0.status, 200);
    assert!(get(Some(&site.sign("other.example"))).is_err());
}

#[test]
fn without_a_ca_the_certificates_of_the_system_verify_clients() {
    let site = WebFixture::new();
    let config = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n");
    let exporter = site.start_with(&[("SSL_CERT_FILE", &site.authority())], &config, &[]);
    let get = |client: Option<&CertificateAndKey>| site.get(&exporter, "/healthz", client);
    assert_eq!(get(Some(&site.sign("a.example"))).unwrap().0.status, 200);
    assert!(get(Some(&WebFixture::new().sign("a.example"))).is_err(), "another CA");
    assert!(get(None).is_err(), "no certificate");
    exporter.wait_for_log("each CA of the system can issue client certificates");

    site.write("web.yml", &config);
    site.write("empty", "");
    let [empty, config] = ["empty", "web.yml"].map(|name| site.path(name));
    let environment = [("SSL_CERT_FILE", &*empty), ("DCGM_EXPORTER_WEB_CONFIG_FILE", &config)];
    let output = run_with(&environment, &["--mock=idle-t4"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("client_ca_file: missing, and the system has no CA"), "{error}");
}

#[test]
fn refused_client_certificate_has_its_reason_in_the_log_once() {
    let site = WebFixture::new();
    let config = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [scraper.example]\n"
    );
    let exporter = site.start(&config, &[]);
    // The CA's own certificate, as a self-signed one that is given as its own CA.
    let own =
        CertificateAndKey { cert: site.authority.pem(), key: site.authority.key().serialize_pem() };
    let other_ca = WebFixture::new().sign("scraper.example");
    let other_name = site.sign("other.example");
    for (client, reason) in [
        (Some(&own), "it is a CA certificate, such as a self-signed one"),
        (
            Some(&other_ca),
            "no CA of client_ca_file, or of the system if there is none, has issued it",
        ),
        (Some(&other_name), "none of its names is in client_allowed_sans"),
        (None, "the client sent none"),
    ] {
        for _ in 0..3 {
            assert!(site.get(&exporter, "/healthz", client).is_err(), "{reason}");
        }
        exporter.wait_for_log(reason);
        assert_eq!(exporter.log().matches(reason).count(), 1, "{}", exporter.log());
    }
}

#[test]
fn client_certificate_that_is_no_longer_allowed_has_no_open_connection() {
    let site = WebFixture::new();
    let config = |san: &str| {
        format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             client_allowed_sans: [{san}]\n"
        )
    };
    let exporter = site.start(&config("scraper.example"), &["--web-read-timeout=1h"]);
    let client = site.sign("scraper.example");
    let mut connection = KeepAlive(site.connect(&exporter, Some(&client)).unwrap());
    assert_eq!(connection.get("/healthz", "").unwrap().status, 200);
    // Other settings do not end connections.
    site.write("web.yml", &format!("{}rate_limit: {{}}\n", config("scraper.example")));
    exporter.wait_for_log("web.yml: reloaded");
    assert_eq!(connection.get("/healthz", "").unwrap().status, 200);
    site.write("web.yml", &config("other.example"));
    let mut end = [0];
    assert!(matches!(connection.0.read(&mut end), Ok(0)), "closed");
}
