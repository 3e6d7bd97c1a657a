use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

/// A directory with a certificate, its key and an empty file.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(directory.path().join("tls.key"), signing_key.serialize_pem()).unwrap();
    std::fs::write(directory.path().join("empty"), "").unwrap();
    directory
}

fn parsed(text: &str) -> Result<WebConfig, Problem> {
    let directory = directory();
    WebConfig::parse(text.as_bytes(), directory.path())
}

const TLS: &str = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";

#[test]
fn configurations_of_the_exporter_toolkit_are_accepted() {
    let hash = bcrypt::hash("x", 4).unwrap();
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "---\n# nothing\n",
        "null\n",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
        "http_server_config:\n  http2:\n  headers:\n",
        "http_server_config:\n  headers:\n    X-Frame-Options:\n",
        "rate_limit:\n  interval:\n  burst:\n",
        "rate_limit: {interval: 1.5s, burst: 2}\n",
        "rate_limit: {interval: 500000}\n",
        "tls_server_config: {}\n",
        "http_server_config: {}\n",
        "basic_auth_users: {}\n",
        TLS,
        &format!("{TLS}  min_version: TLS12\n  max_version: TLS13\n"),
        &format!("{TLS}  max_version: TLS12\n"),
        &format!("{TLS}  client_auth_type: RequestClientCert\n"),
        &format!("{TLS}  client_auth_type: RequireAnyClientCert\n"),
        &format!("{TLS}  client_auth_type: RequireClientCert\n"),
        &format!("{TLS}  client_auth_type:\n  client_ca_file:\n  client_allowed_sans:\n"),
        &format!("{TLS}  cipher_suites:\n  curve_preferences:\n  min_version:\n"),
        &format!("{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: tls.crt\n"),
        &format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: tls.crt\n  \
             client_allowed_sans: [a.example, '*.a.example', a@b.example, 10.0.0.1, 'spiffe://x/y']\n"
        ),
        &format!("{TLS}  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n"),
        &format!("{TLS}  curve_preferences: [X25519, CurveP256]\n"),
        &format!(
            "{TLS}http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: DENY\n"
        ),
        &format!("basic_auth_users:\n  alice: {hash}\n"),
        "rate_limit:\n  interval: 100ms\n  burst: 5\n",
        "rate_limit:\n  interval: 0\n",
    ] {
        let config = parsed(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(config.tls.is_some(), text.contains("cert_file"), "{text}");
    }
}

#[test]
fn error_is_one_short_line_without_passwords() {
    let long = "é".repeat(10_000);
    for text in [
        "basic_auth_users:\n  \"a\\n\\tb\": hunter2\n",
        &format!("basic_auth_users:\n  {long}: hunter2\n"),
        &format!("rate_limit: {{interval: {long}}}\n"),
        &format!("{long}: hunter2\n"),
        "basic_auth_users: hunter2\n",
        "basic_auth_users:\n  - hunter2\n",
        "rate_limit:\n  burst: hunter2\n",
        "tls_server_config:\n  key: [hunter2]\n",
        "basic_auth_users:\n  a: !!int hunter2\n",
    ] {
        let message = parsed(text).err().unwrap().to_string();
        assert!(message.len() < 4096 && !message.contains(char::is_control), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn invalid_values_are_refused_with_key_and_remedy() {
    let tls = |more: &str| format!("{TLS}  {more}\n");
    for (text, expected) in [
        ("tls_config: {}\n".to_owned(), "tls_config"),
        ("tls_server_config:\n  cert: x\n  cert_files: y\n".to_owned(), "cert_files"),
        ("basic_auth_users: [a]\n".to_owned(), "line"),
        ("a: b: c\n".to_owned(), "line"),
        ("basic_auth_users:\n  alice:\n".to_owned(), "the value is missing"),
        ("tls_server_config:\n  cert_file: tls.crt\n".to_owned(), "key_file: missing"),
        ("tls_server_config:\n  key_file: tls.key\n".to_owned(), "cert_file: missing"),
        (tls("cert: x"), "set both as cert and as cert_file"),
        ("tls_server_config:\n  cert_file: no\n  key_file: tls.key\n".to_owned(), "No such file"),
        (
            "tls_server_config:\n  cert_file: empty\n  key_file: tls.key\n".to_owned(),
            "no certificate",
        ),
        (
            "tls_server_config:\n  cert_file: tls.crt\n  key_file: empty\n".to_owned(),
            "no private key",
        ),
        (tls("min_version: TLS10"), "give one of TLS12, TLS13"),
        (format!("{TLS}  min_version: TLS13\n  max_version: TLS12\n"), "older than min_version"),
        (tls("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"), "give one of TLS13_AES_256_GCM_SHA384"),
        (tls("curve_preferences: [CurveP521]"), "give one of CurveP256, CurveP384, X25519"),
        (tls("client_auth_type: Always"), "give one of NoClientCert"),
        (tls("client_ca_file: tls.crt"), "not used without client_auth_type"),
        (tls("client_allowed_sans: [a.example]"), "not used without client_auth_type"),
        ("http_server_config:\n  headers:\n    Server: x\n".to_owned(), "cannot be set"),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: maybe\n".to_owned(),
            "deny or sameorigin",
        ),
        (
            "basic_auth_users:\n  alice: secret\n".to_owned(),
            "basic_auth_users.alice: not a bcrypt hash",
        ),
        (
            format!(
                "basic_auth_users:\n  a: {}\n",
                bcrypt::hash("x", 4).unwrap().replace("$04$", "$31$")
            ),
            "a bcrypt cost of 31 takes minutes",
        ),
        ("rate_limit:\n  interval: soon\n".to_owned(), "give for example 100ms or 1s"),
        ("rate_limit:\n  interval: 1s\n  burst: 0\n".to_owned(), "give at least 1"),
    ] {
        let error = parsed(&text).err().unwrap_or_else(|| panic!("accepted: {text}")).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn yaml_errors_have_position_reason_and_remedy() {
    for (text, expected) in [
        (
            "tls_server_config: 5\n",
            "line 1, column 20: keys are expected here; write KEY: VALUE, one per line",
        ),
        (
            "a: 1\n",
            "line 1, column 1: unknown key a; use only tls_server_config, http_server_config, basic_auth_users, rate_limit",
        ),
        ("\"a\n", "line 1, column 1: unclosed quote; correct the YAML syntax at this position"),
        (
            "basic_auth_users:\n  a: b\n  a: c\n",
            "line 3, column 3: the key a is given twice; remove one",
        ),
        (
            "basic_auth_users:\n  ? [a]\n  : b\n",
            "line 2, column 5: a text is expected here; give a text, in quotes if it has special characters",
        ),
        ("basic_auth_users:\n  a:\n", "line 2, column 4: the value is missing; give a text"),
        (
            "rate_limit:\n  burst: -1\n",
            "line 2, column 10: not a whole number; give a number from 0 to 4294967295",
        ),
        (
            "http_server_config:\n  http2: maybe\n",
            "line 2, column 10: not a boolean; give true or false",
        ),
        (
            "tls_server_config:\n  cipher_suites: X\n",
            "line 2, column 18: a list is expected here; write it in brackets, as in [a, b]",
        ),
        (
            "tls_server_config:\n  min_version: TLS10\n",
            "line 2, column 3: unknown value TLS10; give one of TLS12, TLS13",
        ),
    ] {
        assert_eq!(parsed(text).err().unwrap().to_string(), expected, "{text}");
    }
}

#[test]
fn empty_values_of_the_tls_configuration_count_as_missing() {
    let text = format!("{TLS}  min_version: \"\"\n  client_auth_type: \"\"\n");
    assert!(parsed(&text).unwrap().tls.is_some());
}

#[test]
fn unusable_certificates_and_keys_are_named() {
    let directory = directory();
    let other = generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, text) in [("other.key", &*other.signing_key.serialize_pem()), ("damaged", damaged)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    for (certificate, key, more, expected) in [
        (
            "tls.crt",
            "other.key",
            "",
            "key_file: not the key of the certificate in cert_file; give the key of this certificate",
        ),
        (
            "damaged",
            "tls.key",
            "",
            "cert_file: the server certificate is damaged; give an X.509 certificate in PEM format",
        ),
        (
            "tls.crt",
            "tls.key",
            "client_ca_file: empty",
            "client_ca_file: no certificate in PEM format; give a PEM file",
        ),
        (
            "tls.crt",
            "tls.key",
            "client_ca_file: damaged",
            "client_ca_file: a certificate is damaged; give CA certificates in PEM format",
        ),
        (
            "tls.crt",
            "tls.key",
            "max_version: TLS12\n  cipher_suites: [TLS13_AES_128_GCM_SHA256]",
            "cipher_suites: none can be used with the TLS versions of min_version and max_version; add another cipher suite",
        ),
    ] {
        let auth = if more.contains("ca_file") {
            "\n  client_auth_type: RequireAndVerifyClientCert"
        } else {
            ""
        };
        let text = format!(
            "tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\n  {more}{auth}\n"
        );
        let problem =
            WebConfig::parse(text.as_bytes(), directory.path()).err().unwrap().to_string();
        assert_eq!(problem, format!("tls_server_config.{expected}"), "{text}");
    }
}

#[test]
fn error_does_not_quote_lines_with_passwords() {
    let problem = parsed("basic_auth_users:\n  alice: [secret]\n").err().unwrap().to_string();
    assert!(!problem.contains("secret"), "{problem}");
    let problem = parsed("basic_auth_users:\n  alice: secret\n").err().unwrap().to_string();
    assert!(!problem.contains("secret"), "{problem}");
}

#[test]
fn another_certificate_changes_the_digest() {
    let directory = directory();
    let digest = || WebConfig::parse(TLS.as_bytes(), directory.path()).unwrap().digest;
    let before = digest();
    assert_eq!(digest(), before);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(directory.path().join("tls.key"), signing_key.serialize_pem()).unwrap();
    assert_ne!(digest(), before);
}

#[test]
fn unencrypted_passwords_are_warned_about() {
    let hash = bcrypt::hash("x", 4).unwrap();
    let config = parsed(&format!("basic_auth_users:\n  alice: {hash}\n")).unwrap();
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn less_than_verified_client_certificates_are_warned_about() {
    for (auth, expected) in [
        ("RequireAndVerifyClientCert\n  client_ca_file: tls.crt\n  client_allowed_sans: [a]", ""),
        ("RequireAnyClientCert\n  client_allowed_sans: [a]", "without a verified certificate"),
        (
            "VerifyClientCertIfGiven\n  client_ca_file: tls.crt\n  client_allowed_sans: [a]",
            "without a verified certificate",
        ),
    ] {
        let warnings = parsed(&format!("{TLS}  client_auth_type: {auth}\n")).unwrap().warnings;
        assert_eq!(warnings.is_empty(), expected.is_empty(), "{auth}: {warnings:?}");
        assert!(warnings.concat().contains(expected), "{auth}: {warnings:?}");
    }
}

#[test]
fn rate_limits_have_the_durations_of_go() {
    let interval = |text: &str| {
        let config = parsed(&format!("rate_limit: {{interval: {text}}}\n")).unwrap();
        config.rate.map(|rate| rate.interval.as_nanos())
    };
    assert_eq!(
        ["1.5s", "500us", "100", "0", "0s", "null"].map(interval),
        [Some(1_500_000_000), Some(500_000), Some(100), None, None, None]
    );
}

#[test]
fn durations_are_parsed_in_the_notation_of_go() {
    let ns = |text| parse_duration(text).map(|time| time.as_nanos());
    for (text, expected) in [
        ("0", 0),
        ("+5s", 5_000_000_000),
        ("10s", 10_000_000_000),
        ("1m30s", 90_000_000_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("1.5h30m", 7_200_000_000_000),
        ("500us", 500_000),
        ("12\u{b5}s", 12_000),
        ("12\u{3bc}s", 12_000),
        ("52763797000ns", 52_763_797_000),
        ("39h9m14.425s", 140_954_425_000_000),
        ("0.3333333333333333333h", 1_200_000_000_000),
        ("2562047h", 9_223_369_200_000_000_000),
    ] {
        assert_eq!(ns(text), Some(expected), "{text}");
    }
    let huge = format!("{}h", "9".repeat(400));
    for text in [
        "", "10", "s", "1x", "-1s", "+", ".", ".s", "1.2.3s", "1e3s", "infs", "NaNs", &huge, "1h x",
    ] {
        assert_eq!(ns(text), None, "{text}");
    }
}
