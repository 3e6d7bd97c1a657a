//! Where the exporter serves: whether the address is free, and else who is there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::{Finding, Topic};
use crate::args::ServeConfig;
use crate::catalog::own::{OWN, OwnSeries};
use crate::clock::Clock;
use crate::policy;
use crate::quote::in_part;

/// What is read of an answer.
const ANSWER_MAX: u64 = 4 << 20;
/// What stands on our page for people, and in what asks for a password.
const OURS: &str = env!("CARGO_PKG_NAME");

/// Who serves at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// This exporter; its version, where it tells.
    Ours(String),
    /// Another exporter of GPUs.
    Exporter,
    /// Something else, and what it says.
    Other(String),
}

/// Looks at the address of `serve`.
#[must_use]
pub fn look(serve: &ServeConfig, clock: Clock) -> Finding {
    let all: Vec<String> = serve.addresses.iter().map(ToString::to_string).collect();
    let subject = format!("--address {}", all.join(", "));
    if serve.systemd_socket {
        return Finding::skipped(Topic::Port, subject, "systemd hands a socket over instead");
    }
    let Err(error) = TcpListener::bind(serve.addresses.as_slice()) else {
        return Finding::ok(Topic::Port, subject, "free");
    };
    let taken = error.kind() == io::ErrorKind::AddrInUse;
    let Some(address) = serve.addresses.first().copied().filter(|_| taken) else {
        return Finding::failure(Topic::Port, subject, format!("it cannot be had: {error}"))
            .mended_by("give another --address");
    };
    if serve.web.config.tls.is_some() {
        let said = "taken, by whom is not asked: --web-config-file has it speak TLS";
        return Finding::note(Topic::Port, subject, said);
    }
    let reach = reachable(address);
    let own = serve.own_path.as_deref().unwrap_or("/");
    let asked = ["/metrics", own].map(|path| get(reach, path, clock));
    told(&subject, &format!("http://{reach}/metrics"), &who(&asked))
}

/// Where somebody who listens everywhere is reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// The whole answer, or as much of it as comes in time.
fn get(address: SocketAddr, path: &str, clock: Clock) -> io::Result<String> {
    let deadline = clock.now().mono + policy::CHECK_ANSWER;
    let mut stream = TcpStream::connect_timeout(&address, policy::CHECK_ANSWER)?;
    stream.set_write_timeout(Some(policy::CHECK_ANSWER))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let patience = clock.until(deadline);
        let full = u64::try_from(answer.len()).is_ok_and(|length| length >= ANSWER_MAX);
        if patience.is_zero() || full {
            break;
        }
        stream.set_read_timeout(Some(patience))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(_) if !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Who answers so.
fn who(answers: &[io::Result<String>]) -> Who {
    let told = || answers.iter().flatten();
    let build = OWN.iter().find(|own| own.series == OwnSeries::BuildInfo).map(|own| own.name);
    let build = build.unwrap_or_default();
    let info = |text: &String| {
        let line = text.lines().find(|line| line.starts_with(build))?;
        Some(line.split('"').nth(1).unwrap_or_default().to_owned())
    };
    if let Some(version) = told().find_map(info) {
        return Who::Ours(version);
    }
    if told().any(|text| text.contains(OURS)) {
        return Who::Ours(String::new());
    }
    if told().any(|text| text.lines().any(|line| line.starts_with("DCGM_"))) {
        return Who::Exporter;
    }
    match answers.first() {
        Some(Ok(text)) => Who::Other(in_part(text.lines().next().unwrap_or_default(), 100)),
        Some(Err(error)) => Who::Other(error.to_string()),
        None => Who::Other(String::new()),
    }
}

fn told(subject: &str, url: &str, who: &Who) -> Finding {
    match who {
        Who::Ours(version) => {
            let version = if version.is_empty() { String::new() } else { format!(" {version}") };
            let said =
                format!("taken by an {OURS}{version} ({url}): the one that is looked after here");
            Finding::note(Topic::Port, subject, said)
        }
        Who::Exporter => {
            let said =
                format!("taken by another exporter of GPUs, as dcgm-exporter is one ({url})");
            Finding::warning(Topic::Port, subject, said)
                .mended_by("run one of them only: two on a node double every sum")
        }
        Who::Other(words) => {
            let said = format!("taken by somebody who is no exporter of GPUs ({url}: {words})");
            Finding::failure(Topic::Port, subject, said).mended_by("give another --address")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn of(answers: &[&str]) -> Who {
        who(&answers.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn exporters_are_told_by_their_pages() {
        let page = "HTTP/1.0 200 OK\r\n\r\nDCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 1\n";
        let own = format!("{page}nvml_exporter_build_info{{version=\"0.1.0\"}} 1\n");
        assert_eq!(of(&[&own]), Who::Ours("0.1.0".to_owned()));
        assert_eq!(of(&[page, &own]), Who::Ours("0.1.0".to_owned()), "own series elsewhere");
        assert_eq!(of(&[page, "<title>nvml-exporter</title>"]), Who::Ours(String::new()));
        assert_eq!(of(&[page, "<title>GPU Exporter</title>"]), Who::Exporter);
        let realm =
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"nvml-exporter\"\r\n";
        assert_eq!(of(&[realm, realm]), Who::Ours(String::new()));
        assert_eq!(
            of(&["HTTP/1.0 404 Not Found\r\n", ""]),
            Who::Other("HTTP/1.0 404 Not Found".to_owned())
        );
    }

    #[test]
    fn one_of_ours_is_noted_another_warned_of_and_a_stranger_fails() {
        assert_eq!(told("a", "u", &Who::Ours(String::new())).verdict, Verdict::Note);
        assert_eq!(told("a", "u", &Who::Exporter).verdict, Verdict::Warning);
        assert_eq!(told("a", "u", &Who::Other("x".to_owned())).verdict, Verdict::Failure);
    }

    #[test]
    fn who_listens_everywhere_is_reached_here() {
        assert_eq!(reachable("[::]:9400".parse().unwrap()).to_string(), "127.0.0.1:9400");
        assert_eq!(reachable("10.0.0.1:9400".parse().unwrap()).to_string(), "10.0.0.1:9400");
    }
}
