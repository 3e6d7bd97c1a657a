//! The listen address: whether it is free, and otherwise which program uses it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::{Finding, Topic};
use crate::args::ServeConfig;
use crate::catalog::exporter_metrics::{EXPORTER_METRICS, ExporterMetricId};
use crate::clock::Clock;
use crate::policy;
use crate::sanitize::truncate_for_log;
use crate::serve::listener::{bind_problem, subject};
use crate::serve::routes::{LANDING, METRICS, OWN_METRICS};

/// Maximum number of bytes to read of a response.
const RESPONSE_MAX: u64 = 4 << 20;
/// A text of our web page, and of our 401 response.
const OWN_NAME: &str = env!("CARGO_PKG_NAME");

/// The program that serves at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ListeningProgram {
    /// nvml-exporter, with its version; empty if unknown.
    NvmlExporter(String),
    /// Another GPU exporter.
    OtherExporter,
    /// Another program, with the first line of its response or the error.
    OtherProgram(String),
}

/// The findings about the listen addresses of `serve`.
#[must_use]
pub fn findings(serve: &ServeConfig, clock: Clock) -> Vec<Finding> {
    let of = |addresses: &Vec<SocketAddr>| finding(addresses, serve, clock);
    serve.addresses.iter().map(of).collect()
}

fn finding(addresses: &[SocketAddr], serve: &ServeConfig, clock: Clock) -> Finding {
    let subject = subject(addresses);
    if serve.systemd_socket {
        return Finding::skipped(Topic::Port, subject, "not used: systemd passes the sockets");
    }
    let Err(error) = TcpListener::bind(addresses) else {
        return Finding::ok(Topic::Port, subject, "free");
    };
    let occupied = error.kind() == io::ErrorKind::AddrInUse;
    let Some(address) = addresses.first().copied().filter(|_| occupied) else {
        return Finding::of_problem(Topic::Port, subject, &bind_problem(&error));
    };
    if serve.web_config.tls.is_some() {
        let message = "in use; the program is not probed, since --web-config-file enables TLS";
        return Finding::note(Topic::Port, subject, message);
    }
    let target = connect_address(address);
    let own = serve.routes.own_path.as_deref().unwrap_or(OWN_METRICS);
    let responses = [METRICS, own, LANDING].map(|path| get(target, path, clock));
    in_use(&subject, &format!("http://{target}{METRICS}"), &identify(&responses))
}

/// The address to connect to: loopback instead of the unspecified address.
fn connect_address(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// The whole response, or the part of it that arrives in time.
fn get(address: SocketAddr, path: &str, clock: Clock) -> io::Result<String> {
    let deadline = clock.now().mono + policy::CHECK_TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, policy::CHECK_TIMEOUT)?;
    stream.set_write_timeout(Some(policy::CHECK_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut response = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let timeout = clock.until(deadline);
        let full = u64::try_from(response.len()).is_ok_and(|length| length >= RESPONSE_MAX);
        if timeout.is_zero() || full {
            break;
        }
        stream.set_read_timeout(Some(timeout))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => response.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(_) if !response.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Identifies the program by its responses.
fn identify(responses: &[io::Result<String>]) -> ListeningProgram {
    let texts = || responses.iter().flatten();
    let build = EXPORTER_METRICS
        .iter()
        .find(|own| own.id == ExporterMetricId::BuildInfo)
        .map(|own| own.name);
    let build = build.unwrap_or_default();
    let info = |text: &String| {
        let line = text.lines().find(|line| line.starts_with(build))?;
        Some(line.split('"').nth(1).unwrap_or_default().to_owned())
    };
    if let Some(version) = texts().find_map(info) {
        return ListeningProgram::NvmlExporter(version);
    }
    if texts().any(|text| text.contains(OWN_NAME)) {
        return ListeningProgram::NvmlExporter(String::new());
    }
    if texts().any(|text| text.lines().any(|line| line.starts_with("DCGM_"))) {
        return ListeningProgram::OtherExporter;
    }
    match responses.first() {
        Some(Ok(text)) => ListeningProgram::OtherProgram(truncate_for_log(
            text.lines().next().unwrap_or_default(),
            100,
        )),
        Some(Err(error)) => ListeningProgram::OtherProgram(error.to_string()),
        None => ListeningProgram::OtherProgram(String::new()),
    }
}

fn in_use(subject: &str, url: &str, program: &ListeningProgram) -> Finding {
    match program {
        ListeningProgram::NvmlExporter(version) => {
            let version = if version.is_empty() { String::new() } else { format!(" {version}") };
            let message = format!("in use by the running {OWN_NAME}{version} ({url})");
            Finding::note(Topic::Port, subject, message)
        }
        ListeningProgram::OtherExporter => {
            let message = format!("in use by another GPU exporter, such as dcgm-exporter ({url})");
            Finding::warning(Topic::Port, subject, message)
                .with_remedy("run only one of them: two on a node double every sum")
        }
        ListeningProgram::OtherProgram(response) => {
            let message = format!("in use by another program ({url}: {response})");
            Finding::failure(Topic::Port, subject, message).with_remedy("set another --address")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn of(responses: &[&str]) -> ListeningProgram {
        identify(&responses.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn exporters_are_identified_by_their_responses() {
        let metrics = "HTTP/1.0 200 OK\r\n\r\nDCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 1\n";
        let own = format!("{metrics}nvml_exporter_build_info{{version=\"0.1.0\"}} 1\n");
        assert_eq!(of(&[&own]), ListeningProgram::NvmlExporter("0.1.0".to_owned()));
        let elsewhere = of(&[metrics, &own]);
        assert_eq!(
            elsewhere,
            ListeningProgram::NvmlExporter("0.1.0".to_owned()),
            "own series elsewhere"
        );
        let page = "<title>nvml-exporter</title>";
        assert_eq!(of(&[metrics, page]), ListeningProgram::NvmlExporter(String::new()));
        assert_eq!(of(&[metrics, "<title>GPU Exporter</title>"]), ListeningProgram::OtherExporter);
        let realm =
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"nvml-exporter\"\r\n";
        assert_eq!(of(&[realm, realm]), ListeningProgram::NvmlExporter(String::new()));
        assert_eq!(
            of(&["HTTP/1.0 404 Not Found\r\n", ""]),
            ListeningProgram::OtherProgram("HTTP/1.0 404 Not Found".to_owned())
        );
    }

    #[test]
    fn severity_depends_on_the_program_that_uses_the_address() {
        let verdict = |program| in_use("a", "u", &program).verdict;
        assert_eq!(verdict(ListeningProgram::NvmlExporter(String::new())), Outcome::Note);
        assert_eq!(verdict(ListeningProgram::OtherExporter), Outcome::Warning);
        assert_eq!(verdict(ListeningProgram::OtherProgram("x".to_owned())), Outcome::Failure);
    }

    #[test]
    fn unspecified_address_is_reached_by_loopback() {
        let target = |text: &str| connect_address(text.parse().unwrap()).to_string();
        assert_eq!(target("[::]:9400"), "127.0.0.1:9400");
        assert_eq!(target("10.0.0.1:9400"), "10.0.0.1:9400");
    }
}
