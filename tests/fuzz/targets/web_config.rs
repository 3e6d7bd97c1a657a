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
            let text = String::from_utf8_lossy(bytes);
            let is_password = text.contains(": hunter2") && text.matches(SECRET).count() == 1;
            assert!(!is_password || !told.contains(SECRET), "{told}");
        }
    }
}
