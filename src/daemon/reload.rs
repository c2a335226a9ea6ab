//! SIGHUP: parse, check, swap. A faulty file changes nothing; a good one loses no opening,
//! no pending stop, and no attempt at a door that stays.

use crate::firewall::Ruleset;
use crate::model::{Config, OnStop, Tripwires};

use super::commands::Commands;
use super::run::{self, Daemon, now};
use super::setup::{Live, Setup, fill_one_time};
use super::{Fault, deeds, start};

impl Daemon<'_> {
    /// Rereads the configuration and reopens the log.
    pub(super) fn reload(&mut self) -> Result<(), Fault> {
        self.manager.reloading();
        let path = self.path.display().to_string();
        tracing::info!("re-reading config file: {path}");
        let swapped = match self.options.read(&self.path) {
            Ok(setup) => self.swap(setup),
            Err(faults) => {
                for fault in faults {
                    tracing::error!("{fault}");
                }
                tracing::error!("{path} cannot be used: the running configuration stays");
                self.reopen_log();
                Ok(())
            }
        };
        self.manager.ready();
        self.manager.status(self.status_line());
        swapped
    }

    fn swap(&mut self, setup: Setup) -> Result<(), Fault> {
        let Setup {
            config,
            one_time,
            bytes,
            warnings,
        } = setup;
        for line in warnings {
            tracing::warn!("{line}");
        }
        // The table first: it is what the kernel may refuse, and then nothing has changed.
        if let Err(error) = self.swap_table(&config) {
            tracing::error!("{error}: the running configuration stays");
            return Ok(());
        }
        self.swap_commands(&config);
        self.line.links.set_patterns(&config.interfaces);
        self.swap_doors(config, one_time)?;
        self.reopen_log();
        let state = self.options.state(&self.path);
        if let Err(error) = state.keep_last_good(&bytes) {
            tracing::debug!("the last good configuration is not kept: {error}");
        }
        Ok(())
    }

    /// Gives the doors to the filter and the matcher. The filter first: a packet it passes
    /// too early is judged by the matcher, one it does not pass is lost.
    fn swap_doors(&mut self, config: Config, one_time: Live) -> Result<(), Fault> {
        let tripwires = Tripwires::new(config.tripwires, self.key, &config.doors);
        run::tell_fit(self.live.set_filter(&config.doors, &tripwires)?);
        self.line.take_config(config, one_time, tripwires, now());
        Ok(())
    }

    fn swap_table(&mut self, config: &Config) -> Result<(), Fault> {
        let lock = start::lock(self.options, config, self.lock.as_ref())?;
        match (&mut self.line.table, Ruleset::new(config)) {
            (Some(table), Some(ruleset)) => {
                deeds::tell_started(&table.reload(ruleset, now())?);
            }
            (None, Some(_)) => self.line.table = start::table(self.options, config)?,
            (Some(_), None) => {
                if let Some(table) = self.line.table.take() {
                    table.stop(OnStop::Remove)?;
                }
            }
            (None, None) => {}
        }
        if let Some(lock) = lock
            && let Some(old) = self.lock.replace(lock)
        {
            old.remove();
        }
        Ok(())
    }

    fn swap_commands(&mut self, config: &Config) {
        match &mut self.line.commands {
            Some(commands) => commands.reload(config),
            None => match Commands::start(self.options, &self.path, config) {
                Ok(commands) => self.line.commands = commands,
                Err(error) => tracing::error!("{error}: no command will run"),
            },
        }
    }

    fn reopen_log(&self) {
        if let Err((file, error)) = self.log.configure(&self.line.config.log) {
            tracing::error!("cannot open the log {}: {error}", file.display());
        }
    }

    /// A one-time sequence was used: the next one is listened for.
    pub(super) fn next_sequences(&mut self) -> Result<(), Fault> {
        self.line.sequence_used = false;
        let mut config = self.line.config.clone();
        let (one_time, said) = fill_one_time(&mut config);
        for line in said {
            tracing::warn!("{line}");
        }
        self.swap_doors(config, one_time)
    }
}
