//! Finds out which chains stop a connection. It takes chains away and tries again; it does not read
//! their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::error::ProbeError;
use super::host_interfaces::HostInterface;
use super::live_ruleset::{BaseChain, LiveRuleset};
use super::remedy::{Remedy, of_another_guard};
use super::replica::{Arrangement, Replica};
use super::report::{Blocker, DoorVerdict, Repair};
use super::trial::{Services, Trial};
use crate::firewall::Ruleset;
use crate::model::{Config, Door, Effect, Guard, Lifetime, SetElement};

/// How long openings of a replica last: longer than any check takes.
const LONG: Lifetime = Lifetime::For(Duration::from_secs(3600));

/// A host, its replica, and the configuration whose doors are tried there.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) replica: &'a Replica<'a>,
    pub(super) live: &'a LiveRuleset,
    pub(super) config: &'a Config,
    pub(super) ruleset: &'a Ruleset,
    pub(super) guard: Guard,
}

/// A trial that other tables stop.
struct Stopped<'a, 't> {
    trial: &'t Trial,
    /// The chains that stop it, each with whether its policy does.
    by: Vec<(&'a BaseChain, bool)>,
}

impl<'a> Search<'a> {
    /// Returns the verdict on each trial on this interface, in the order of `trials`.
    pub(super) fn judge(
        &self,
        interface: &HostInterface,
        trials: &[Trial],
    ) -> Result<Vec<DoorVerdict>, ProbeError> {
        let sources = trials.iter().map(|t| t.source).collect();
        self.replica.attach(interface, &sources)?;
        let round = Round {
            search: self,
            services: Services::new(self.replica, trials)?,
        };
        let mut verdicts = BTreeMap::new();
        let mut rest = Vec::new();
        for trial in trials {
            match round.services.lack(trial) {
                Some(why) => {
                    let why = format!("the copy has no {}: {why}", trial.to);
                    verdicts.insert(trial, DoorVerdict::CannotTell(why));
                }
                None => rest.push(trial),
            }
        }

        if self.guard != Guard::Off {
            let (passed, failed) = round.run(&self.arrangement(&[]), &rest)?;
            verdicts.extend(passed.into_iter().map(|t| (t, DoorVerdict::Unguarded)));
            rest = failed;
        }
        // Doors that put sources into the same sets can be tried together.
        let add = |trial: &Trial| self.config.doors.get(trial.door).map(|door| &door.add);
        while let Some(first) = rest.first().map(|trial| add(trial)) {
            let (group, others) = rest.into_iter().partition(|trial| add(trial) == first);
            rest = others;
            verdicts.extend(round.after_knocks(group)?);
        }
        let untried = || DoorVerdict::CannotTell("it was not tried".to_owned());
        // Trials may be equal: an interface may have an address twice, with two prefixes.
        let each = trials.iter().map(|trial| verdicts.get(trial).cloned());
        Ok(each.map(|found| found.unwrap_or_else(untried)).collect())
    }

    /// Returns our table beside those of others, after these effects.
    fn arrangement(&self, effects: &[Effect]) -> Arrangement<'a> {
        Arrangement {
            ruleset: Some(self.ruleset),
            effects: effects.to_vec(),
            ..Arrangement::default()
        }
    }

    /// Returns the verdict on a trial that comes through. If the replica lacks parts of the ruleset, the
    /// verdict stays open, for such a part may stop a client.
    fn works(&self) -> DoorVerdict {
        match self.live.unseen.as_slice() {
            [] => DoorVerdict::Works,
            unseen => DoorVerdict::CannotTell(format!(
                "it passes all that was tried, but not tried was {}",
                unseen.join("; ")
            )),
        }
    }

    /// Returns the effects of the knocks of these trials.
    fn effects(&self, trials: &[&Trial]) -> Vec<Effect> {
        let mut effects: Vec<Effect> = Vec::new();
        for trial in trials {
            let door = self.config.doors.get(trial.door);
            for effect in door.into_iter().flat_map(|door| knock(door, trial.source)) {
                if !effects.contains(&effect) {
                    effects.push(effect);
                }
            }
        }
        effects
    }
}

/// Returns the effects of a knock of `source` at the door.
fn knock(door: &Door, source: IpAddr) -> impl Iterator<Item = Effect> + '_ {
    let open = Effect::Open {
        door: door.name.clone(),
        source,
        ports: door.open.to_vec(),
        lifetime: LONG,
    };
    let adds = door.add.iter().cloned().map(move |element| {
        let SetElement {
            path,
            ports,
            lifetime,
        } = element;
        Effect::Add {
            door: door.name.clone(),
            source,
            path,
            ports,
            lifetime,
        }
    });
    std::iter::once(open).chain(adds)
}

/// The services behind the ports of one interface; trials are run under one arrangement of the
/// replica after another.
struct Round<'a, 's> {
    search: &'s Search<'a>,
    services: Services,
}

impl<'a> Round<'a, '_> {
    /// Returns the trials that come through under this arrangement, and the trials that do not.
    fn run<'t>(
        &self,
        arrangement: &Arrangement<'_>,
        trials: &[&'t Trial],
    ) -> Result<(Vec<&'t Trial>, Vec<&'t Trial>), ProbeError> {
        let Search { replica, live, .. } = self.search;
        replica.arrange(live, arrangement)?;
        let passed = self.services.passing(replica, trials)?;
        let trials = trials.iter().copied();
        Ok(trials.partition(|trial| passed.contains(trial)))
    }

    /// Returns the verdict on each of these trials after their knocks.
    fn after_knocks<'t>(
        &self,
        mut failed: Vec<&'t Trial>,
    ) -> Result<Vec<(&'t Trial, DoorVerdict)>, ProbeError> {
        let effects = self.search.effects(&failed);
        let arrangement = self.search.arrangement(&effects);
        let mut verdicts = Vec::new();
        // A rule may limit how many it lets in at a time: a trial that comes too late is repeated.
        while !failed.is_empty() {
            let (passed, late) = self.run(&arrangement, &failed)?;
            failed = late;
            if passed.is_empty() {
                break;
            }
            verdicts.extend(passed.into_iter().map(|t| (t, self.search.works())));
        }
        verdicts.extend(self.explain(&effects, &failed)?);
        Ok(verdicts)
    }

    /// Returns the verdict on each of these trials: the chains that stop it, and a repair that lets it
    /// pass.
    fn explain<'t>(
        &self,
        effects: &[Effect],
        stopped: &[&'t Trial],
    ) -> Result<Vec<(&'t Trial, DoorVerdict)>, ProbeError> {
        let mut verdicts = Vec::new();
        if stopped.is_empty() {
            return Ok(verdicts);
        }
        let Search { live, .. } = self.search;
        let silent = Arrangement {
            silent: live.chains.iter().collect(),
            ..self.search.arrangement(effects)
        };
        let (stopped, lost) = self.run(&silent, stopped)?;
        let why = "it does not even pass without the other tables";
        let lost = lost.into_iter();
        verdicts.extend(lost.map(|t| (t, DoorVerdict::CannotTell(why.to_owned()))));
        if stopped.is_empty() {
            return Ok(verdicts);
        }

        let mut found = self.by_one_chain(effects, stopped)?;
        self.by_several_chains(effects, &mut found)?;
        let mut blocked = Vec::new();
        for stopped in found {
            match stopped.doubt(live) {
                Some(why) => verdicts.push((stopped.trial, DoorVerdict::CannotTell(why))),
                None => blocked.push(stopped),
            }
        }
        verdicts.extend(self.repair(effects, blocked)?);
        Ok(verdicts)
    }

    /// Returns which chains stop the trials when each stands alone beside our table.
    fn by_one_chain<'t>(
        &self,
        effects: &[Effect],
        trials: Vec<&'t Trial>,
    ) -> Result<Vec<Stopped<'a, 't>>, ProbeError> {
        let chains = &self.search.live.chains;
        let mut found: Vec<_> = trials
            .iter()
            .map(|trial| Stopped {
                trial,
                by: Vec::new(),
            })
            .collect();
        for chain in chains {
            let alone = Arrangement {
                silent: chains.iter().filter(|c| *c != chain).collect(),
                ..self.search.arrangement(effects)
            };
            let (_, held) = self.run(&alone, &trials)?;
            let by_policy = match chain.drops && !held.is_empty() {
                true => {
                    let lenient = vec![chain];
                    self.run(&Arrangement { lenient, ..alone }, &held)?.0
                }
                false => Vec::new(),
            };
            for stopped in found.iter_mut().filter(|s| held.contains(&s.trial)) {
                let is_policy = by_policy.contains(&stopped.trial);
                stopped.by.push((chain, is_policy));
            }
        }
        Ok(found)
    }

    /// If no chain stops a trial by itself, finds the chains without which the trial passes: one chain
    /// may mark packets that another drops.
    fn by_several_chains(
        &self,
        effects: &[Effect],
        found: &mut [Stopped<'a, '_>],
    ) -> Result<(), ProbeError> {
        let open = found.iter().filter(|s| s.by.is_empty());
        let open: Vec<&Trial> = open.map(|s| s.trial).collect();
        if open.is_empty() {
            return Ok(());
        }
        for chain in &self.search.live.chains {
            let without = Arrangement {
                silent: vec![chain],
                ..self.search.arrangement(effects)
            };
            let (passed, _) = self.run(&without, &open)?;
            for stopped in found.iter_mut().filter(|s| passed.contains(&s.trial)) {
                stopped.by.push((chain, false));
            }
        }
        Ok(())
    }

    /// Returns the verdict on each trial, with the first remedy that is found to help.
    fn repair<'t>(
        &self,
        effects: &[Effect],
        blocked: Vec<Stopped<'a, 't>>,
    ) -> Result<Vec<(&'t Trial, DoorVerdict)>, ProbeError> {
        let Search { live, config, .. } = self.search;
        let guard = |stopped: &Stopped<'a, 't>| {
            let mut tables = stopped.chains().filter_map(|chain| live.table(chain));
            tables.find(|table| table.guard)
        };
        let mut verdicts = Vec::new();
        let mut rest = Vec::new();
        for stopped in blocked {
            match guard(&stopped) {
                Some(table) => verdicts.push(stopped.verdict(Some(of_another_guard(table)))),
                None => rest.push(stopped),
            }
        }
        for remedy in Remedy::all(config) {
            if rest.is_empty() {
                break;
            }
            let lines_for = |s: &Stopped<'_, '_>| -> Vec<String> {
                let chains = s.chains();
                chains.map(|c| remedy.line(c, &s.trial.ports)).collect()
            };
            let lines: BTreeSet<String> = rest.iter().flat_map(lines_for).collect();
            let ruleset = remedy.ruleset(config);
            let arrangement = Arrangement {
                lines: lines.into_iter().collect(),
                ruleset: ruleset.as_ref(),
                effects: effects.to_vec(),
                ..Arrangement::default()
            };
            let trials: Vec<_> = rest.iter().map(|s| s.trial).collect();
            let (helped, _) = match self.run(&arrangement, &trials) {
                Ok(run) => run,
                // A line that is refused is no remedy.
                Err(ProbeError::Tool { .. }) => continue,
                Err(other) => return Err(other),
            };
            let (helped, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|s| helped.contains(&s.trial));
            rest = others;
            verdicts.extend(helped.iter().map(|stopped| {
                let chains: Vec<_> = stopped.chains().collect();
                let repair = remedy.repair(&chains, &stopped.trial.ports, config, live);
                stopped.verdict(Some(repair))
            }));
        }
        verdicts.extend(rest.iter().map(|stopped| stopped.verdict(None)));
        Ok(verdicts)
    }
}

impl<'a, 't> Stopped<'a, 't> {
    fn chains(&self) -> impl Iterator<Item = &'a BaseChain> {
        self.by.iter().map(|(chain, _)| *chain)
    }

    /// Returns the reason why it is not certain that these chains block the trial, if there is one.
    fn doubt(&self, live: &LiveRuleset) -> Option<String> {
        let of = |chain: &BaseChain| format!("chain {} {}", chain.table, chain.name);
        if self.by.is_empty() {
            return Some("several chains stop it, in several ways".to_owned());
        }
        if let Some(chain) = self.chains().find(|c| c.kind == "nat") {
            return Some(format!(
                "{} sends it elsewhere (to a container?), where a copy cannot follow",
                of(chain)
            ));
        }
        let asks = |chain: &&BaseChain| live.table(chain).is_some_and(|table| table.asks);
        let chain = self.chains().find(asks)?;
        Some(format!(
            "{} stops it, or a program that it asks (queue)",
            of(chain)
        ))
    }

    fn verdict(&self, repair: Option<Repair>) -> (&'t Trial, DoorVerdict) {
        let by = self.by.iter().map(|(chain, policy)| Blocker {
            chain: format!("{} {}", chain.table, chain.name),
            policy: *policy,
        });
        let by = by.collect();
        (self.trial, DoorVerdict::Blocked { by, repair })
    }
}
