//! SIGHUP: parse, check, swap. A faulty file changes nothing; a good one loses no opening,
//! no pending stop, and no attempt at a door that stays.

use std::path::Path;

use crate::config::Audience;
use crate::firewall::Ruleset;
use crate::model::{Config, OnStop};

use super::Fault;
use super::command_helper::Commands;
use super::control::socket::{self, Reply};
use super::control::status::Refused;
use super::event_loop::{Daemon, now};
use super::log::log_lines;
use super::one_time_files::{Answer, Found};
use super::setup::{Setup, put_in};
use super::start;

/// Whether a file is what it was for this process and the first time alone: a pipe, as
/// `-c /dev/stdin` and `-c <(…)` are, or a file descriptor's.
fn is_read_once(path: &Path) -> bool {
    let own = ["/dev/stdin", "/dev/fd", "/proc"];
    let is_own = own.iter().any(|place| path.starts_with(place));
    is_own || path.metadata().is_ok_and(|meta| !meta.is_file())
}

impl Daemon<'_> {
    /// Rereads the configuration and reopens the log. What became of it, for who has asked: the
    /// log is told by itself.
    pub(super) fn reload(&mut self) -> Reply {
        self.manager.reloading(now());
        let path = self.path.display().to_string();
        tracing::info!("re-reading config file: {path}");
        self.names = socket::names(&self.path);
        let reply = if is_read_once(&self.path) {
            let text = format!(
                "{path} cannot be read again: the running configuration stays; for another, \
                 start knockd anew"
            );
            tracing::error!("{text}");
            Reply::Refused(text)
        } else {
            match self.options.read(&self.path) {
                Ok(mut setup) => {
                    let clerk = &self.line.clerk;
                    setup.read_sequences(clerk.used(), clerk.news());
                    self.swap(setup)
                }
                Err(unusable) => {
                    let faults = unusable.shown_to(Audience::Log);
                    for fault in &faults {
                        tracing::error!("{fault}");
                    }
                    let stays = format!("{path} cannot be used: the running configuration stays");
                    tracing::error!("{stays}");
                    self.refuse(&faults);
                    // Who asks is root, and shows the lines to a terminal alone.
                    let mut faults = unusable.shown_to(Audience::Terminal);
                    faults.push(stays);
                    Reply::Faulty(faults)
                }
            }
        };
        self.log.configure(&self.line.config.log);
        self.manager.ready(now());
        self.manager.status(self.status_line(), now());
        reply
    }

    /// Notes that the file on the disk is not what runs.
    fn refuse(&mut self, why: &[String]) {
        // What was in use before, the first of several faulty files included, still is.
        let in_use = self.refused.take().map(|before| before.in_use);
        let in_use = in_use.unwrap_or_else(|| Refused::RUNNING.to_owned());
        self.refused = Some(Refused::new(in_use, why));
    }

    fn swap(&mut self, setup: Setup) -> Reply {
        let Setup {
            config,
            one_time,
            bytes,
            warnings,
            refused: _,
        } = setup;
        for line in &warnings {
            tracing::warn!("{line}");
        }
        // What the kernel may refuse comes first: then nothing has changed.
        if let Err(error) = self.swap_kernel(&config) {
            tracing::error!("{error}: the running configuration stays");
            self.refuse(&[error.to_string()]);
            return Reply::Refused(format!("{error}: the running configuration stays"));
        }
        self.refused = None;
        self.swap_commands(&config, &bytes);
        let others = config.interfaces != self.line.config.interfaces;
        self.line.links.set_patterns(&config.interfaces);
        self.ticks.set_patience(start::patience(&config));
        self.line.take_config(config, one_time, now());
        if others {
            tracing::info!("listening on {}", self.hears());
            self.tell_waits();
        }
        let state = self.options.state(&self.path);
        self.keeper.keep_last_good(state, bytes);
        tracing::info!("the new configuration is in force");
        // Where `knockd reload` is a unit's ExecReload=, the journal reads it: without the lines
        // that hold steps. `knockd check` shows those.
        let warnings = warnings.iter().map(|line| line.shown_to(Audience::Log));
        let mut lines: Vec<_> = warnings.collect();
        lines.push("the new configuration is in force".to_owned());
        Reply::Done(lines)
    }

    /// The filter first: a packet that it passes too early is judged by the matcher, one
    /// that it does not pass is lost.
    fn swap_kernel(&mut self, config: &Config) -> Result<(), Fault> {
        start::set_filter(&mut self.listener, config)?;
        self.swap_table(config).inspect_err(|_| {
            if let Err(error) = start::set_filter(&mut self.listener, &self.line.config) {
                tracing::error!("{error}");
            }
        })
    }

    fn swap_table(&mut self, config: &Config) -> Result<(), Fault> {
        let lock = start::take_lock(self.options, config, self.lock.as_ref())?;
        let ruleset = Ruleset::new(config).map(|ruleset| ruleset.of(&self.path));
        match (&mut self.line.table, ruleset) {
            (Some(table), Some(ruleset)) => {
                log_lines::tell_started(&table.reload(ruleset, now())?);
            }
            (None, Some(ruleset)) => {
                self.line.table = Some(start::make_table(self.options, ruleset)?);
            }
            (Some(table), None) => {
                table.stop(OnStop::Remove)?;
                self.line.table = None;
            }
            (None, None) => {}
        }
        // Another table has another lock, no table has none.
        let old = match lock {
            Some(lock) => self.lock.replace(lock),
            None => self.lock.take_if(|_| config.firewall.is_none()),
        };
        if let Some(old) = old {
            old.remove();
        }
        Ok(())
    }

    fn swap_commands(&mut self, config: &Config, text: &[u8]) {
        match &mut self.line.commands {
            Some(commands) => commands.reload(config, text),
            None => match Commands::start(self.options, &self.path, config, text) {
                Ok(commands) => self.line.commands = commands,
                Err(error) => tracing::error!("{error}: no command will run"),
            },
        }
    }

    /// Hears what became of files that were read or written beside the packets.
    pub(super) fn hear_clerk(&mut self) {
        for answer in self.line.clerk.hear() {
            match answer {
                Answer::Marked(case, marked, next) => {
                    self.line.marked(case, marked, now());
                    self.take_next(next);
                }
                Answer::Read(found) => self.take_next(found),
            }
        }
    }

    /// The next one-time sequence of a door is listened for, unless it has one.
    fn take_next(&mut self, found: Found) {
        if self.line.clerk.is_stale(&found) {
            let Found { door, file, .. } = found;
            self.line.clerk.read(door, file, &self.line.config);
            return;
        }
        let mut config = self.line.config.clone();
        let mut one_time = self.line.one_time.clone();
        for line in put_in(&mut config, &mut one_time, found) {
            tracing::warn!("{line}");
        }
        // The filter knows no sequence, but for doors whose flags fit sessions.
        if let Err(error) = start::set_filter(&mut self.listener, &config) {
            tracing::error!("{error}: the next sequence may not be heard");
        }
        self.line.take_config(config, one_time, now());
    }
}
