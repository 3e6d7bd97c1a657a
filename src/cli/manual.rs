//! The manual page: one page for the program and its subcommands.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Arg, Command};
use clap_mangen::Man;

/// Sections after the options, in roff.
const SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
.B 0
success; serving was ended by a signal
.TP
.B 1
an invalid configuration, nothing to read with \fB\-\-once\fR, \fBtop\fR or \fBrecord\fR, or a failure found by \fBcheck\fR
.TP
.B 2
an invalid command line
.SH SIGNALS
.TP
.B SIGTERM, SIGINT
finish the scrapes in flight and exit; a second one exits at once
.TP
.B SIGHUP
read the counters file again
.TP
.B SIGUSR1
release NVML, so that GPUs can be reset, partitioned or get another driver
.TP
.B SIGUSR2
open NVML again
.SH FILES
.TP
.B libnvidia\-ml.so.1
the NVML library of the driver
.TP
.B /proc
processes and their control groups
.TP
.B /var/lib/kubelet/pod\-resources/kubelet.sock
the devices of containers
.TP
.B /var/log/pods, /var/log/containers
names of pods and containers until the API server has them
.SH EXAMPLES
.TP
.B nvml\-exporter
serve on port 9400
.TP
.B nvml\-exporter \-\-once \-\-mock=faulty
print the metrics of a simulated node
.TP
.B nvml\-exporter check \-\-problems
what is wrong with this node, and what to do
.TP
.B nvml\-exporter record \-\-output node.toml
record this node, to attach to a report; \fB\-\-mock=node.toml\fR plays it
.TP
.B nvml\-exporter top \-\-url http://node:9400
show another node
.TP
.B nvml\-exporter man | man \-l \-
read this page
"#;

const SYNOPSIS: &str = r".SH SYNOPSIS
.B nvml\-exporter
[OPTIONS]
.br
.B nvml\-exporter top|check|record
[OPTIONS]
.br
.B nvml\-exporter completions
SHELL
.br
.B nvml\-exporter man
";

/// The page in roff.
///
/// # Errors
/// The page cannot be generated.
pub(super) fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    // Without the examples of the help: the page has a section of them.
    let mut command = command.clone().after_help("").after_long_help("");
    command.build();
    let man = Man::new(command.clone());
    let rendered = (|| -> io::Result<()> {
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        text.write_all(SYNOPSIS.as_bytes())?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        for subcommand in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            subcommand_section(&command, subcommand, &mut text)?;
        }
        environment(&command, &mut text)?;
        text.write_all(SECTIONS.as_bytes())
    })();
    rendered.context("cannot generate the manual page")?;
    Ok(text)
}

/// A subcommand with the flags that only it has.
fn subcommand_section(
    command: &Command,
    subcommand: &Command,
    text: &mut Vec<u8>,
) -> io::Result<()> {
    let name = subcommand.get_name();
    writeln!(text, ".SH \"{} {}\"", roff(command.get_name()).to_uppercase(), name.to_uppercase())?;
    let about = subcommand.get_long_about().or(subcommand.get_about());
    if let Some(about) = about {
        writeln!(text, "{}", roff(&about.to_string()))?;
    }
    let is_shared = |arg: &Arg| command.get_arguments().any(|other| other.get_id() == arg.get_id());
    for arg in subcommand.get_arguments().filter(|arg| !is_shared(arg)) {
        writeln!(text, ".TP\n\\fB{}\\fR", roff(&arg.to_string()))?;
        writeln!(text, "{}", roff(&arg.get_help().map(ToString::to_string).unwrap_or_default()))?;
    }
    Ok(())
}

/// The environment variables of all flags.
fn environment(command: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    writeln!(text, ".SH ENVIRONMENT\nA flag takes precedence over its variable.")?;
    let own = command.get_arguments();
    let all = own.chain(command.get_subcommands().flat_map(Command::get_arguments));
    let mut seen = Vec::new();
    for arg in all {
        let Some(variable) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if !seen.contains(&variable) {
            let flag = format!("--{}", arg.get_long().unwrap_or_default());
            writeln!(text, ".TP\n.B {}\n\\fB{}\\fR", roff(&variable), roff(&flag))?;
            seen.push(variable);
        }
    }
    writeln!(
        text,
        ".TP\n.B NO_COLOR\nif it is set, \\fBtop\\fR and \\fBcheck\\fR print without colour"
    )?;
    writeln!(text, ".TP\n.B COLUMNS\nwidth of \\fBtop \\-\\-once\\fR")
}

/// A text with what roff would interpret escaped.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| {
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
