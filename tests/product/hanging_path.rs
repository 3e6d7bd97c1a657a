//! A file system that does not respond: a library in `LD_PRELOAD` delays the calls about some paths.

#![expect(clippy::disallowed_methods, reason = "a test starts a compiler")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::exporter::{Exporter, run_with};

/// Delays each call about a path that contains `HANG_PATH`, while the file `HANG_FILE` exists.
const LIBRARY: &str = r"
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void delay(const char *path) {
  const char *part = getenv(`HANG_PATH`), *file = getenv(`HANG_FILE`);
  while (path && strstr(path, part) && access(file, F_OK) == 0) usleep(10000);
}
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, int);
  va_end(rest);
  delay(path);
  return NEXT(open64)(path, flags, mode);
}
DIR *opendir(const char *path) {
  delay(path);
  return NEXT(opendir)(path);
}
ssize_t readlink(const char *path, char *buffer, size_t size) {
  delay(path);
  return NEXT(readlink)(path, buffer, size);
}
int statx(int directory, const char *path, int flags, unsigned mask, struct statx *buffer) {
  delay(path);
  return NEXT(statx)(directory, path, flags, mask, buffer);
}
";

/// A part of paths, with a file system that hangs on request.
pub(crate) struct HangingPath {
    directory: tempfile::TempDir,
    part: String,
}

impl HangingPath {
    /// Compiles the library for paths that contain `part`; their file system responds.
    pub(crate) fn new(part: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("hang.c");
        fs::write(&source, LIBRARY.replace('`', "\"")).unwrap();
        let library = directory.path().join("hang.so");
        let compiled = Command::new("cc")
            .args(["-w", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .expect("a C compiler, installed by tests/run");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Self { directory, part: part.to_owned() }
    }

    /// Starts the hang.
    pub(crate) fn hang(&self) {
        fs::write(self.file(), "").unwrap();
    }

    /// Ends the hang.
    pub(crate) fn respond(&self) {
        fs::remove_file(self.file()).unwrap();
    }

    /// Starts the exporter with this file system.
    pub(crate) fn start(&self, args: &[&str]) -> Exporter {
        let environment = self.environment();
        let environment = environment.each_ref().map(|(key, value)| (*key, value.as_str()));
        Exporter::start_with(&environment, args)
    }

    /// Runs the exporter with this file system until it exits.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let environment = self.environment();
        run_with(&environment.each_ref().map(|(key, value)| (*key, value.as_str())), args)
    }

    fn environment(&self) -> [(&'static str, String); 3] {
        let library = self.directory.path().join("hang.so");
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(library)),
            ("HANG_PATH", self.part.clone()),
            ("HANG_FILE", text(self.file())),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("hang")
    }
}
