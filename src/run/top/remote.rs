//! A running exporter, asked for its node.

use std::path::PathBuf;
use std::sync::mpsc::Sender;

use anyhow::Context;
use clap::builder::BoolishValueParser;

use serde::Deserialize;

use super::News;
use crate::kube::api::{self, Address, Password};
use crate::policy;
use crate::view::VERSION;

/// Which exporter to ask instead of reading the node.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Another node")]
pub struct Remote {
    /// Ask the exporter at this URL, as `http://node:9400`, instead of reading this node
    #[arg(long, env = "NVML_EXPORTER_URL", value_name = "URL")]
    url: Option<String>,

    /// User and password to ask with
    #[arg(
        long,
        env = "NVML_EXPORTER_USER",
        value_name = "USER:PASSWORD",
        hide_env_values = true,
        requires = "url"
    )]
    user: Option<String>,

    /// Certificates to check the exporter's against [default: those of the system]
    #[arg(long, env = "NVML_EXPORTER_CA", value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,

    /// Do not check the exporter's certificate
    #[arg(
        long,
        env = "NVML_EXPORTER_INSECURE_TLS",
        requires = "url",
        value_parser = BoolishValueParser::new()
    )]
    insecure_tls: bool,
}

impl Remote {
    /// Where to ask; none, if this node is to be read.
    ///
    /// # Errors
    /// A user without a password.
    pub(super) fn address(self) -> anyhow::Result<Option<Address>> {
        let Some(url) = self.url else { return Ok(None) };
        let user = self.user.as_deref().map(credentials).transpose()?;
        Ok(Some(Address::Exporter { url, user, ca: self.ca, insecure: self.insecure_tls }))
    }
}

fn credentials(user: &str) -> anyhow::Result<(String, Password)> {
    let (name, password) = user.split_once(':').context("--user: give USER:PASSWORD")?;
    Ok((name.to_owned(), Password(password.to_owned())))
}

/// Asks an exporter every so often, until nobody listens.
pub(super) fn ask(exporter: &Address, tell: &Sender<News>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error.to_string()))),
    };
    runtime.block_on(async {
        loop {
            let answer = answer(exporter).await;
            if tell.send(answer).is_err() {
                return;
            }
            tokio::time::sleep(policy::TOP_EVERY).await;
        }
    });
}

async fn answer(exporter: &Address) -> News {
    let path = "/api/v1/node";
    let patience = policy::TOP_ANSWER;
    let asked = async {
        let client = exporter.connect().await?;
        let body = api::get(&client, path, patience).await?;
        api::whole(body, policy::TOP_ANSWER_MAX, patience).await
    };
    let bytes = asked.await.map_err(|fault| fault.to_string())?;
    read(&bytes).map_err(|why| format!("{path}: {why}"))
}

/// What every version of an answer has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn read(answer: &[u8]) -> News {
    let none_of_ours = |error| format!("not an answer of nvml-exporter: {error}");
    let Versioned { version } = serde_json::from_slice(answer).map_err(none_of_ours)?;
    if version != VERSION {
        return Err(format!(
            "version {version}, and this program reads {VERSION}; use the exporter's own"
        ));
    }
    serde_json::from_slice(answer).map_err(none_of_ours)
}
