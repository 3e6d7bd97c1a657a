//! Polls the node view (`/api/v1/node`) of a running exporter.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Context;
use clap::builder::BoolishValueParser;

use serde::Deserialize;

use super::NodeUpdate;
use crate::kube::api;
use crate::kube::endpoint::{Endpoint, EndpointAuth, Password};
use crate::model::Problem;
use crate::policy;
use crate::view::VERSION;

/// Flags that select a running exporter instead of this node.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Another node")]
pub struct RemoteArgs {
    /// Show the node of the exporter at this URL (for example `http://node:9400`) instead of this node
    #[arg(long, env = "NVML_EXPORTER_URL", value_name = "URL")]
    url: Option<String>,

    /// User and password for the exporter's basic authentication
    #[arg(
        long,
        env = "NVML_EXPORTER_USER",
        value_name = "USER:PASSWORD",
        hide_env_values = true,
        requires = "url"
    )]
    user: Option<String>,

    /// CA certificates to verify the exporter's certificate with [default: those of the system]
    #[arg(long, env = "NVML_EXPORTER_CA", value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,

    /// Do not verify the exporter's certificate
    #[arg(
        long,
        env = "NVML_EXPORTER_INSECURE_TLS",
        requires = "url",
        value_parser = BoolishValueParser::new()
    )]
    insecure_tls: bool,
}

impl RemoteArgs {
    /// The exporter to poll; `None` to read this node.
    ///
    /// # Errors
    /// `--user` has no password.
    pub(super) fn endpoint(self) -> anyhow::Result<Option<Endpoint>> {
        let Some(url) = self.url else { return Ok(None) };
        let auth = self.user.as_deref().map_or(Ok(EndpointAuth::None), credentials)?;
        Ok(Some(Endpoint { url, ca: self.ca, insecure: self.insecure_tls, auth }))
    }
}

fn credentials(user: &str) -> anyhow::Result<EndpointAuth> {
    let (name, password) =
        user.split_once(':').context("--user: the password is missing; give USER:PASSWORD")?;
    Ok(EndpointAuth::Basic(name.to_owned(), Password(password.to_owned())))
}

/// Why no exporter can be polled, and what to do.
const NO_RUNTIME: &str = "cannot poll the exporter; raise the limit of open files";

/// Polls an exporter every `interval` until the receiver is dropped.
pub(super) fn poll(exporter: &Endpoint, interval: Duration, updates: &Sender<NodeUpdate>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(updates.send(Err(format!("{NO_RUNTIME} ({error})")))),
    };
    runtime.block_on(async {
        loop {
            let update = fetch(exporter).await;
            if updates.send(update).is_err() {
                return;
            }
            tokio::time::sleep(interval).await;
        }
    });
}

async fn fetch(exporter: &Endpoint) -> NodeUpdate {
    let path = "/api/v1/node";
    let timeout = policy::TOP_TIMEOUT;
    let response = async {
        let client = exporter.client()?;
        let body = api::get(&client, path, timeout).await?;
        api::read_body(body, policy::TOP_RESPONSE_MAX, timeout).await
    };
    let bytes = response.await.map_err(|error| request_error(exporter, error.problem))?;
    parse(&bytes).map_err(|error| format!("--url {}: {error}", exporter.url))
}

/// The error of a request, which names the flag and has a remedy in any case.
fn request_error(exporter: &Endpoint, problem: Problem) -> String {
    let remedy = "check that the exporter runs, and that --url has its address and port";
    let remedy = problem.remedy.unwrap_or_else(|| remedy.to_owned());
    let message = problem.message.trim_start_matches(&format!("{}: ", exporter.url));
    Problem::new(message, remedy).at(format!("--url {}", exporter.url)).to_string()
}

/// The part of the JSON object that all versions have in common.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn parse(body: &[u8]) -> NodeUpdate {
    let invalid = |error| {
        format!("the response is not one of nvml-exporter ({error}); check the URL of --url")
    };
    let Versioned { version } = serde_json::from_slice(body).map_err(invalid)?;
    if version != VERSION {
        return Err(format!(
            "the response has version {version}, and this program reads {VERSION}; use the nvml-exporter \
             of the same release"
        ));
    }
    serde_json::from_slice(body).map_err(invalid)
}
