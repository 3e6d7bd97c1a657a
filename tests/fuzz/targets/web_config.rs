//! Files of `--web-config-file`.

use std::path::Path;

use nvml_exporter::web_config::WebConfig;

use crate::is_log_line;

/// The password in seeds; error messages must not contain it.
const SECRET: &str = "hunter2";

/// A file is parsed, or rejected with a one-line message that contains no password.
pub(crate) fn check(bytes: &[u8]) {
    // Skips paths to existing files, which would be read as certificates.
    if bytes.windows(2).any(|two| two == b"/d" || two == b"/p" || two == b"..") {
        return;
    }
    match WebConfig::parse(bytes, Path::new("/nonexistent")) {
        Ok(config) => {
            for (name, value) in &config.headers {
                assert!(!name.as_str().is_empty() && !value.is_empty());
            }
            assert!(config.rate.is_none_or(|rate| !rate.interval.is_zero() && rate.burst > 0));
            assert!(config.warnings.iter().all(|remark| is_log_line(remark)));
        }
        Err(problem) => {
            let message = problem.to_string();
            assert!(is_log_line(&message), "{message:?}");
            assert!(!has_secret(bytes) || !message.contains(SECRET), "{message}");
        }
    }
}

/// Whether the secret occurs only once, as the password of the first user.
fn has_secret(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let first = text.strip_prefix("basic_auth_users:\n  ").and_then(|users| users.lines().next());
    let password = first.and_then(|user| user.split_once(": ")).map(|(_, password)| password);
    password == Some(SECRET) && text.matches(SECRET).count() == 1
}
