//! Flags of how the exporter is reached.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::BoolishValueParser;

use crate::serve::{Timeouts, Web, settings};
use crate::web_config::{WebConfig, duration};

/// How the exporter is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
#[expect(clippy::struct_field_names, reason = "flags as their users know them")]
pub struct Serving {
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
    /// How the exporter is reached, and whether on systemd's socket.
    ///
    /// # Errors
    /// The file cannot be used, or there is no socket.
    pub fn settle(self) -> anyhow::Result<(Web, bool)> {
        let Self { web_config_file, web_systemd_socket, web_read_timeout, web_write_timeout } =
            self;
        let file = web_config_file.filter(|path| !path.is_empty()).map(PathBuf::from);
        let config = match &file {
            Some(file) => settings::read(file)?,
            None => WebConfig::default(),
        };
        if web_systemd_socket && std::env::var_os("LISTEN_FDS").is_none() {
            bail!(
                "--web-systemd-socket: systemd has handed over no socket (LISTEN_FDS is not set); \
                 start the exporter through its socket unit"
            );
        }
        let timeouts = Timeouts { read: web_read_timeout, write: web_write_timeout };
        Ok((Web { config, file, timeouts }, web_systemd_socket))
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("give a time as in 10s, 1m30s or 500ms, above 0".to_owned()),
    }
}
