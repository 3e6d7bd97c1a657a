//! Flags of how the exporter is reached.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::BoolishValueParser;

use super::config::ServeConfig;
use crate::serve::{PATHS, Timeouts, Web, settings};
use crate::web_config::{WebConfig, duration};

/// How the exporter is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct Serving {
    /// Address to serve on: `:PORT` for every interface, `HOST:PORT` for one
    #[arg(short, long, env = "DCGM_EXPORTER_LISTEN", default_value = ":9400")]
    address: String,

    /// Serve the exporter's own series (`nvml_exporter_*`) at this path instead of at `/metrics`
    #[arg(long, env = "NVML_EXPORTER_OWN_METRICS_PATH", value_name = "PATH")]
    own_metrics_path: Option<String>,

    /// Serve neither the page for people at `/` nor what it is made of, `/api/v1/node`
    #[arg(
        long,
        env = "NVML_EXPORTER_NO_LANDING_PAGE",
        value_parser = BoolishValueParser::new()
    )]
    no_landing_page: bool,

    /// File with certificates, passwords, headers and a limit of requests
    #[arg(long, env = "DCGM_EXPORTER_WEB_CONFIG_FILE", value_name = "FILE")]
    web_config_file: Option<String>,

    /// Serve on the socket that systemd hands over, instead of on --address
    #[arg(long, env = "DCGM_EXPORTER_SYSTEMD_SOCKET", value_parser = BoolishValueParser::new())]
    web_systemd_socket: bool,

    /// How long a client may take to send a request, and how long an idle connection lives
    #[arg(
        long,
        env = "DCGM_EXPORTER_WEB_READ_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = time
    )]
    web_read_timeout: Duration,

    /// How long a client may take over a response
    #[arg(
        long,
        env = "DCGM_EXPORTER_WEB_WRITE_TIMEOUT",
        value_name = "TIME",
        default_value = "30s",
        value_parser = time
    )]
    web_write_timeout: Duration,
}

impl Serving {
    /// How what was read is handed out.
    ///
    /// # Errors
    /// An address, a path or the file cannot be used, or there is no socket.
    pub fn settle(self) -> anyhow::Result<ServeConfig> {
        let file = self.web_config_file.filter(|path| !path.is_empty()).map(PathBuf::from);
        let config = match &file {
            Some(file) => settings::read(file)?,
            None => WebConfig::default(),
        };
        if self.web_systemd_socket && std::env::var_os("LISTEN_FDS").is_none() {
            bail!(
                "--web-systemd-socket: systemd has handed over no socket (LISTEN_FDS is not set); \
                 start the exporter through its socket unit"
            );
        }
        let timeouts = Timeouts { read: self.web_read_timeout, write: self.web_write_timeout };
        Ok(ServeConfig {
            addresses: addresses(&self.address)?,
            own_path: self.own_metrics_path.map(own_path).transpose()?,
            landing: !self.no_landing_page,
            web: Web { config, file, timeouts },
            systemd_socket: self.web_systemd_socket,
        })
    }
}

fn own_path(path: String) -> anyhow::Result<Arc<str>> {
    if PATHS.contains(&path.as_str()) {
        bail!("--own-metrics-path {path}: something else is served there; give /metrics/own");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        bail!(
            "--own-metrics-path {path}: a path begins with / and has letters, digits and -._~ only, \
             as in /metrics/own"
        );
    }
    Ok(path.into())
}

fn addresses(text: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let shape = "give :PORT or HOST:PORT, as in :9400 or 127.0.0.1:9400";
    if let Some(port) = text.strip_prefix(':') {
        let port: u16 = port.parse().with_context(|| format!("--address {text}: {shape}"))?;
        // One socket for both families, or IPv4 alone where the host has no IPv6.
        return Ok(vec![SocketAddr::from(([0_u16; 8], port)), SocketAddr::from(([0_u8; 4], port))]);
    }
    let found: Vec<_> =
        text.to_socket_addrs().with_context(|| format!("--address {text}: {shape}"))?.collect();
    Ok(found)
}

fn time(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("give a time as in 10s, 1m30s or 500ms, above 0".to_owned()),
    }
}
