//! Who stops a connection: found by taking chains away, not by reading their rules.

use std::collections::BTreeSet;

use super::error::ProbeError;
use super::host_interfaces::HostInterface;
use super::live_ruleset::{BaseChain, LiveRuleset};
use super::remedy::Remedy;
use super::replica::{Arrangement, Replica};
use super::report::{Blocker, DoorVerdict, Repair};
use super::trial::{Services, Trial};
use crate::firewall::Ruleset;
use crate::model::{Config, Door, Effect, Guard, Lifetime, SetElement};

/// How long openings of a copy last: longer than it is looked at.
const LONG: Lifetime = Lifetime::For(std::time::Duration::from_secs(3600));

/// What is looked at: one host.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) copy: &'a Replica<'a>,
    pub(super) live: &'a LiveRuleset,
    pub(super) config: &'a Config,
    pub(super) ruleset: &'a Ruleset,
    pub(super) guard: Guard,
}

/// What stands for one way in.
struct Stopped<'a> {
    trial: usize,
    by: Vec<&'a BaseChain>,
    policy: BTreeSet<usize>,
}

impl<'a> Search<'a> {
    /// By place in `trials`, what becomes of each on this interface.
    pub(super) fn judge(
        &self,
        link: &HostInterface,
        trials: &[Trial],
    ) -> Result<Vec<DoorVerdict>, ProbeError> {
        let sources = trials.iter().map(|t| t.source).collect();
        self.copy.attach(link, &sources)?;
        let round = Round {
            search: self,
            services: Services::new(self.copy, trials)?,
            trials,
        };
        let lack = |trial: &Trial| {
            let why = round.services.lack(trial)?;
            Some(format!("the copy has no {}: {why}", trial.to))
        };
        let mut rest = Vec::new();
        let mut verdicts = Vec::new();
        for (i, trial) in trials.iter().enumerate() {
            let why = lack(trial);
            if why.is_none() {
                rest.push(i);
            }
            let untried = || "it was not tried".to_owned();
            verdicts.push(DoorVerdict::CannotTell(why.unwrap_or_else(untried)));
        }

        if self.guard != Guard::Off {
            let (passed, failed) = round.run(self.state(Vec::new()), &rest)?;
            for i in passed {
                verdicts[i] = DoorVerdict::Unguarded;
            }
            rest = failed;
        }
        // Doors that put sources into the same sets can be tried together.
        let adds: Vec<_> = self.config.doors.iter().map(|d| &d.add).collect();
        while let Some(first) = rest.first() {
            let add_of = |i: &usize| adds.get(trials[*i].door).copied();
            let add = add_of(first);
            let (group, others) = rest.iter().partition(|i| add_of(i) == add);
            rest = others;
            let group: Vec<usize> = group;
            let effects = self.effects(group.iter().map(|i| &trials[*i]));
            let mut failed = group;
            // A rule may let in so many at a time: who comes too late is tried again.
            while !failed.is_empty() {
                let (passed, late) = round.run(self.state(effects.clone()), &failed)?;
                for i in &passed {
                    verdicts[*i] = self.works();
                }
                failed = late;
                if passed.is_empty() {
                    break;
                }
            }
            for (i, verdict) in round.explain(&effects, failed)? {
                verdicts[i] = verdict;
            }
        }
        Ok(verdicts)
    }

    fn state(&self, effects: Vec<Effect>) -> Arrangement<'a> {
        Arrangement {
            ruleset: Some(self.ruleset),
            effects,
            ..Arrangement::default()
        }
    }

    /// What is not in the copy may still stop it.
    fn works(&self) -> DoorVerdict {
        match self.live.unseen.as_slice() {
            [] => DoorVerdict::Works,
            unseen => DoorVerdict::CannotTell(format!(
                "it passes all that was tried, but not tried was {}",
                unseen.join("; ")
            )),
        }
    }

    /// What the knocks do.
    fn effects<'t>(&self, trials: impl Iterator<Item = &'t Trial>) -> Vec<Effect> {
        let mut effects: Vec<Effect> = Vec::new();
        for trial in trials {
            let Some(door) = self.config.doors.get(trial.door) else {
                continue;
            };
            for effect in knock(door, trial.source) {
                if !effects.contains(&effect) {
                    effects.push(effect);
                }
            }
        }
        effects
    }
}

fn knock(door: &Door, source: std::net::IpAddr) -> impl Iterator<Item = Effect> + '_ {
    let open = Effect::Open {
        door: door.name.clone(),
        source,
        ports: door.open.to_vec(),
        lifetime: LONG,
    };
    let adds = door.add.iter().map(move |element| {
        let SetElement {
            path,
            ports,
            lifetime: _,
        } = element.clone();
        Effect::Add {
            door: door.name.clone(),
            source,
            path,
            ports,
            lifetime: element.lifetime,
        }
    });
    std::iter::once(open).chain(adds)
}

/// The trials of one interface, to be run under one ruleset after another.
struct Round<'a, 't> {
    search: &'t Search<'a>,
    services: Services,
    trials: &'t [Trial],
}

impl<'a> Round<'a, '_> {
    /// Those that come through, and those that do not.
    fn run(
        &self,
        state: Arrangement<'_>,
        which: &[usize],
    ) -> Result<(Vec<usize>, Vec<usize>), ProbeError> {
        let search = self.search;
        search.copy.arrange(search.live, &state)?;
        let trials: Vec<_> = which.iter().map(|i| &self.trials[*i]).collect();
        let passed = self.services.pass(search.copy, &trials)?;
        let mut passed = passed.into_iter();
        Ok(which.iter().partition(|_| passed.next().unwrap_or(false)))
    }

    /// Why each of these is stopped.
    fn explain(
        &self,
        effects: &[Effect],
        stopped: Vec<usize>,
    ) -> Result<Vec<(usize, DoorVerdict)>, ProbeError> {
        let mut verdicts = Vec::new();
        if stopped.is_empty() {
            return Ok(verdicts);
        }
        let state = || self.search.state(effects.to_vec());
        let chains = &self.search.live.chains;
        let silent = Arrangement {
            silent: chains.iter().collect(),
            ..state()
        };
        let (stopped, lost) = self.run(silent, &stopped)?;
        let why = "it does not even pass without the other tables";
        verdicts.extend(
            lost.into_iter()
                .map(|i| (i, DoorVerdict::CannotTell(why.to_owned()))),
        );
        if stopped.is_empty() {
            return Ok(verdicts);
        }

        // Each chain by itself, beside ours.
        let mut found: Vec<Stopped<'a>> = stopped
            .iter()
            .map(|trial| Stopped {
                trial: *trial,
                by: Vec::new(),
                policy: BTreeSet::new(),
            })
            .collect();
        for chain in chains {
            let alone = Arrangement {
                silent: chains.iter().filter(|c| *c != chain).collect(),
                ..state()
            };
            let (_, held) = self.run(alone.clone(), &stopped)?;
            let lenient = Arrangement {
                lenient: vec![chain],
                ..alone
            };
            let by_policy = match chain.drops && !held.is_empty() {
                true => self.run(lenient, &held)?.0,
                false => Vec::new(),
            };
            for one in found.iter_mut().filter(|s| held.contains(&s.trial)) {
                if by_policy.contains(&one.trial) {
                    one.policy.insert(one.by.len());
                }
                one.by.push(chain);
            }
        }
        self.together(effects, &mut found)?;
        let live = self.search.live;
        let (blocked, odd): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|s| riddle(s, live).is_none());
        verdicts.extend(odd.iter().filter_map(|s| {
            let why = riddle(s, live)?;
            Some((s.trial, DoorVerdict::CannotTell(why)))
        }));
        verdicts.extend(self.mend(effects, blocked)?);
        Ok(verdicts)
    }

    /// Where no chain does it by itself: those without which it would pass. One may mark what
    /// another one drops.
    fn together(&self, effects: &[Effect], found: &mut [Stopped<'a>]) -> Result<(), ProbeError> {
        let riddles: Vec<usize> = found
            .iter()
            .filter(|s| s.by.is_empty())
            .map(|s| s.trial)
            .collect();
        if riddles.is_empty() {
            return Ok(());
        }
        for chain in &self.search.live.chains {
            let without = Arrangement {
                silent: vec![chain],
                ..self.search.state(effects.to_vec())
            };
            let (passed, _) = self.run(without, &riddles)?;
            for one in found.iter_mut().filter(|s| passed.contains(&s.trial)) {
                one.by.push(chain);
            }
        }
        Ok(())
    }

    /// The first remedy that is found to help each.
    fn mend(
        &self,
        effects: &[Effect],
        blocked: Vec<Stopped<'a>>,
    ) -> Result<Vec<(usize, DoorVerdict)>, ProbeError> {
        let mut verdicts = Vec::new();
        let of = |chain: &&BaseChain| self.search.live.table(chain);
        let guard = |s: &Stopped<'a>| s.by.iter().filter_map(of).find(|t| t.guard);
        let (guarded, mut rest): (Vec<_>, Vec<_>) =
            blocked.into_iter().partition(|s| guard(s).is_some());
        verdicts.extend(guarded.iter().map(|s| {
            let mend = guard(s).map(|table| Repair {
                mark: None,
                lines: Vec::new(),
                keep: vec![format!(
                    "table {0} is a knockd's, of another configuration: if this one takes its \
                     place, delete it when that daemon is stopped (nft delete table {0}); if not, \
                     who knocks must knock there, too",
                    table.name
                )],
            });
            (s.trial, blocked_by(s, mend))
        }));
        for remedy in Remedy::all(self.search.config) {
            let lines_for = |s: &Stopped<'_>| -> Vec<String> {
                let ports = &self.trials[s.trial].ports;
                s.by.iter().map(|c| remedy.line(c, ports)).collect()
            };
            let mut lines: Vec<String> = rest.iter().flat_map(lines_for).collect();
            lines.sort();
            lines.dedup();
            let ruleset = remedy.ruleset(self.search.config);
            let state = Arrangement {
                lines,
                ruleset: ruleset.as_ref(),
                effects: effects.to_vec(),
                ..Arrangement::default()
            };
            let which: Vec<_> = rest.iter().map(|s| s.trial).collect();
            if which.is_empty() {
                break;
            }
            let helped = match self.run(state, &which) {
                Ok((helped, _)) => helped,
                // A line that is refused is no remedy.
                Err(ProbeError::Tool { .. }) => continue,
                Err(other) => return Err(other),
            };
            let (mended, still): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|s| helped.contains(&s.trial));
            rest = still;
            for s in mended {
                let ports = &self.trials[s.trial].ports;
                let mut keep: Vec<String> =
                    s.by.iter()
                        .map(|chain| remedy.keep(chain, ports, self.search.live))
                        .collect();
                keep.dedup();
                // The owner of a table lets nobody else change it: not live.
                let owned = |chain: &BaseChain| {
                    let table = self.search.live.table(chain);
                    table.is_some_and(|table| table.owned)
                };
                let free = s.by.iter().filter(|chain| !owned(chain));
                let mend = Repair {
                    mark: remedy.needs_mark(self.search.config),
                    lines: free.map(|chain| remedy.line(chain, ports)).collect(),
                    keep,
                };
                verdicts.push((s.trial, blocked_by(&s, Some(mend))));
            }
        }
        verdicts.extend(rest.iter().map(|s| (s.trial, blocked_by(s, None))));
        Ok(verdicts)
    }
}

/// Why it cannot be said that these chains block, if it cannot.
fn riddle(stopped: &Stopped<'_>, live: &LiveRuleset) -> Option<String> {
    let of = |chain: &BaseChain| format!("chain {} {}", chain.table, chain.name);
    let asks = |chain: &&&BaseChain| live.table(chain).is_some_and(|table| table.asks);
    if stopped.by.is_empty() {
        return Some("several chains stop it, in several ways".to_owned());
    }
    if let Some(chain) = stopped.by.iter().find(|c| c.kind == "nat") {
        return Some(format!(
            "{} sends it elsewhere (to a container?), where a copy cannot follow",
            of(chain)
        ));
    }
    let chain = stopped.by.iter().find(asks)?;
    Some(format!(
        "{} stops it, or a program that it asks (queue)",
        of(chain)
    ))
}

fn blocked_by(stopped: &Stopped<'_>, mend: Option<Repair>) -> DoorVerdict {
    let by = stopped.by.iter().enumerate().map(|(i, chain)| Blocker {
        chain: format!("{} {}", chain.table, chain.name),
        policy: stopped.policy.contains(&i),
    });
    DoorVerdict::Blocked {
        by: by.collect(),
        mend,
    }
}
