//! Flags of the HTTP server.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::config::ServeConfig;
use crate::labels::Dialect;
use crate::model::Problem;
use crate::serve::routes::{METRICS, OWN_METRICS, PATHS, Routes};
use crate::serve::{Timeouts, web_config_reload};
use crate::web_config::parse_duration;

/// Flags of the HTTP server.
#[derive(Debug, Args)]
#[command(next_help_heading = "HTTP server")]
pub struct ServeArgs {
    /// Address to listen on: `:PORT` for all interfaces, `HOST:PORT` for one; may be repeated
    #[arg(
        short,
        long,
        alias = "web.listen-address",
        env = "DCGM_EXPORTER_LISTEN",
        default_value = ":9400"
    )]
    address: Vec<String>,

    /// Path of the metrics, besides `/metrics`
    #[arg(
        long,
        alias = "web.telemetry-path",
        env = "NVML_EXPORTER_TELEMETRY_PATH",
        value_name = "PATH"
    )]
    web_telemetry_path: Option<String>,

    /// Serve the exporter's own metrics (`nvml_exporter_*`, `process_*`) at this path instead of at
    /// `/metrics` [default: `/metrics`; in the dcgm-exporter dialect `/metrics/own`]
    #[arg(long, env = "NVML_EXPORTER_OWN_METRICS_PATH", value_name = "PATH")]
    own_metrics_path: Option<String>,

    /// Whether the exporter's own metrics are part of `/metrics`, whatever their own path; `=false` moves
    /// them to `/metrics/own` [default: unless they have a path of their own]
    #[arg(
        long,
        env = "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    enable_exporter_metrics: Option<bool>,

    /// Serve neither the web UI at `/` nor its data at `/api/v1/node`
    #[arg(
        long,
        env = "NVML_EXPORTER_NO_LANDING_PAGE",
        value_parser = BoolishValueParser::new()
    )]
    no_landing_page: bool,

    /// File with TLS, basic authentication, response headers and rate limit, in the format of
    /// Prometheus' exporter toolkit
    #[arg(
        long,
        alias = "web.config.file",
        env = "DCGM_EXPORTER_WEB_CONFIG_FILE",
        value_name = "FILE"
    )]
    web_config_file: Option<String>,

    /// Listen on the sockets that systemd passes (socket activation) instead of on --address
    #[arg(
        long,
        alias = "web.systemd-socket",
        env = "DCGM_EXPORTER_SYSTEMD_SOCKET",
        value_parser = BoolishValueParser::new()
    )]
    web_systemd_socket: bool,

    /// Timeout for reading a request; idle connections live 2 minutes, or this long if it is longer
    #[arg(
        long,
        env = "DCGM_EXPORTER_WEB_READ_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = positive_duration
    )]
    web_read_timeout: Duration,

    /// Timeout for writing a response
    #[arg(
        long,
        env = "DCGM_EXPORTER_WEB_WRITE_TIMEOUT",
        value_name = "TIME",
        default_value = "30s",
        value_parser = positive_duration
    )]
    web_write_timeout: Duration,
}

impl ServeArgs {
    /// Validates the flags and reads the web configuration file.
    ///
    /// # Errors
    /// The address, a path or the web configuration file is invalid, or systemd passed no socket.
    pub fn into_config(self, dialect: &Dialect) -> Result<ServeConfig, Problem> {
        let routes = self.routes(dialect)?;
        let file = self.web_config_file.filter(|path| !path.is_empty()).map(PathBuf::from);
        let web_config = file.map(|file| web_config_reload::read_in_time(&file)).transpose()?;
        if self.web_systemd_socket && std::env::var_os("LISTEN_FDS").is_none() {
            return Err(Problem::new(
                "--web-systemd-socket: systemd passed no socket (LISTEN_FDS is not set)",
                "start the exporter through its socket unit",
            ));
        }
        // The same address twice could not be bound.
        let texts: BTreeSet<&String> = self.address.iter().collect();
        let addresses = texts.into_iter().map(|text| addresses(text));
        Ok(ServeConfig {
            addresses: addresses.collect::<Result<_, _>>()?,
            routes,
            timeouts: Timeouts { read: self.web_read_timeout, write: self.web_write_timeout },
            web_config: web_config.unwrap_or_default(),
            systemd_socket: self.web_systemd_socket,
        })
    }

    /// The paths. In the dialect of dcgm-exporter the exporter's own metrics are not part of `/metrics`:
    /// its tests require pod labels of all series.
    fn routes(&self, dialect: &Dialect) -> Result<Routes, Problem> {
        const OWN_FLAG: &str = "--own-metrics-path";
        const TELEMETRY_FLAG: &str = "--web-telemetry-path";
        let own_path = self.own_metrics_path.as_deref();
        let are_own_on_metrics =
            self.enable_exporter_metrics.unwrap_or(own_path.is_none() && *dialect == Dialect::Ack);
        let own_path = own_path.or_else(|| (!are_own_on_metrics).then_some(OWN_METRICS));
        let own_path =
            own_path.map(|path| checked_path(OWN_FLAG, path, OWN_METRICS)).transpose()?;
        let telemetry_path = self.web_telemetry_path.as_deref().filter(|path| *path != METRICS);
        let telemetry_path = telemetry_path
            .map(|path| checked_path(TELEMETRY_FLAG, path, "/gpu-metrics"))
            .transpose()?;
        if telemetry_path.is_some() && telemetry_path == own_path {
            return Err(Problem::new(
                format!("{TELEMETRY_FLAG}: the exporter's own metrics have this path"),
                format!("give another one, or another {OWN_FLAG}"),
            ));
        }
        let landing = !self.no_landing_page;
        Ok(Routes { telemetry_path, own_path, are_own_on_metrics, landing })
    }
}

/// Validates the path of a flag; `example` is one that is possible.
fn checked_path(flag: &str, path: &str, example: &str) -> Result<Arc<str>, Problem> {
    if PATHS.contains(&path) {
        return Err(Problem::new(
            format!("{flag} {path}: the exporter uses this path already"),
            format!("give another one, for example {example}"),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        return Err(Problem::new(
            format!("{flag} {path}: not a usable path"),
            format!("give a / followed by letters, digits and /-._~ only, for example {example}"),
        ));
    }
    Ok(path.into())
}

fn addresses(text: &str) -> Result<Vec<SocketAddr>, Problem> {
    let invalid = || {
        Problem::new(
            format!("--address {text}: not an address"),
            "give :PORT or HOST:PORT with a port up to 65535, for example :9400 or 127.0.0.1:9400",
        )
    };
    if let Some(port) = text.strip_prefix(':') {
        let port: u16 = port.parse().map_err(|_| invalid())?;
        // One dual-stack socket, or IPv4 only on a host without IPv6.
        return Ok(vec![SocketAddr::from(([0_u16; 8], port)), SocketAddr::from(([0_u8; 4], port))]);
    }
    match text.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(invalid()),
        Err(error) => Err(Problem::new(
            format!("--address {text}: the host name cannot be resolved ({error})"),
            "give an IP address of this host, or :PORT for all interfaces",
        )),
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("give a duration above 0, for example 10s, 1m30s or 500ms".to_owned()),
    }
}
