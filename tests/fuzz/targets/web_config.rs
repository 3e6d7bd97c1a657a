//! The file of `--web-config-file`.

use std::path::Path;

use nvml_exporter::web_config::WebConfig;

use crate::is_sentence;

/// A secret that seeds write where passwords stand: no complaint shows it.
const SECRET: &str = "hunter2";

/// A file is read, or refused in a sentence that names the key or the place and shows no password.
pub(crate) fn check(bytes: &[u8]) {
    // Whatever stands there would be read as a certificate.
    if bytes.windows(2).any(|two| two == b"/d" || two == b"/p" || two == b"..") {
        return;
    }
    match WebConfig::parse(bytes, Path::new("/nonexistent")) {
        Ok(config) => {
            for (name, value) in &config.headers {
                assert!(!name.as_str().is_empty() && !value.is_empty());
            }
            assert!(config.rate.is_none_or(|rate| !rate.interval.is_zero() && rate.burst > 0));
            assert!(config.remarks.iter().all(|remark| is_sentence(remark)));
        }
        Err(problem) => {
            let told = problem.to_string();
            assert!(is_sentence(&told), "{told:?}");
            assert!(!has_secret(bytes) || !told.contains(SECRET), "{told}");
        }
    }
}

/// Whether the secret is the first user's password, and nothing else besides.
fn has_secret(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let first = text.strip_prefix("basic_auth_users:\n  ").and_then(|users| users.lines().next());
    let password = first.and_then(|user| user.split_once(": ")).map(|(_, password)| password);
    password == Some(SECRET) && text.matches(SECRET).count() == 1
}
