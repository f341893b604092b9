//! Control groups, version 1 and 2: where they are, what a container used, how all of it is killed.
//!
//! crun makes and limits the groups; this room only reads and clears them. Groups are under one parent per data
//! directory, outside of any service's own group, so that stopping a service does not stop hosts.

use std::{fs, io};

use camino::{Utf8Path, Utf8PathBuf};

/// Where the control groups of one data directory are.
#[derive(Debug, Clone)]
pub struct Groups {
    /// The controllers' mounts; one of them, without controllers, for version 2.
    hierarchies: Vec<Hierarchy>,
    version: Version,
    parent: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy per controller, with or without an unused unified one beside them.
    One,
    /// The unified hierarchy.
    Two,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: Utf8PathBuf,
    /// The file system's options, among which the controllers are.
    options: String,
    unified: bool,
}

/// What the processes of one group use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Without caches that would be given back.
    pub memory_bytes: u64,
    pub cpu_ms: u64,
    pub processes: u32,
}

impl Groups {
    /// Looks at what is mounted. `parent` names the group of this data directory.
    pub fn detect(parent: String) -> Self {
        let all = mounted();
        let version = match all.iter().any(|hierarchy| !hierarchy.unified) {
            true => Version::One,
            false => Version::Two,
        };
        let used = |hierarchy: &Hierarchy| hierarchy.unified == (version == Version::Two);
        Self {
            hierarchies: all.into_iter().filter(used).collect(),
            version,
            parent,
        }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The path of a container's group in each hierarchy, as OCI's `cgroupsPath`.
    pub fn path(&self, id: &str) -> String {
        format!("/{}/{id}", self.parent)
    }

    pub fn usage(&self, id: &str) -> Usage {
        match self.version {
            Version::One => Usage {
                memory_bytes: self.memory(id, "memory.usage_in_bytes", "total_inactive_file"),
                cpu_ms: self.number("cpuacct", id, "cpuacct.usage").unwrap_or(0) / 1_000_000,
                processes: self.processes(id),
            },
            Version::Two => Usage {
                memory_bytes: self.memory(id, "memory.current", "inactive_file"),
                cpu_ms: self.field("cpu", id, "cpu.stat", "usage_usec").unwrap_or(0) / 1000,
                processes: self.processes(id),
            },
        }
    }

    /// Did the memory limit kill a process of the group?
    pub fn oom_killed(&self, id: &str) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        self.field("memory", id, file, "oom_kill")
            .is_some_and(|kills| kills > 0)
    }

    /// Kills every process of the group. Children that are born meanwhile die in the next round.
    pub fn kill(&self, id: &str) {
        if self.version == Version::Two
            && let Some(group) = self.group("pids", id)
            && fs::write(group.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for _ in 0..100 {
            // In each: a process whose making was cut short may not be in all of them yet.
            let groups = self
                .hierarchies
                .iter()
                .map(|hierarchy| hierarchy.mount.join(&self.parent).join(id));
            let pids: Vec<i32> = groups.flat_map(|group| pids_in(&group)).collect();
            if pids.is_empty() {
                return;
            }
            for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
                // A process that has just ended is killed.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Removes the group of a container, or the parent of all with `None`, from every hierarchy. One that still has
    /// processes or children stays, and the answer is false.
    pub fn remove(&self, id: Option<&str>) -> bool {
        let parent = self.parent.as_str();
        let name = id.map_or(parent.to_owned(), |id| format!("{parent}/{id}"));
        let mut gone = true;
        for hierarchy in &self.hierarchies {
            let group = hierarchy.mount.join(&name);
            gone &= fs::remove_dir(&group).is_ok() || !group.exists();
        }
        // With the unified hierarchy out of sight crun makes plain directories in its place.
        if self.version == Version::One {
            let _ = fs::remove_dir_all(Utf8Path::new("/sys/fs/cgroup/unified").join(&name));
        }
        gone
    }

    /// The names of all groups under the parent.
    pub fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = (self.hierarchies.iter())
            .filter_map(|hierarchy| hierarchy.mount.join(&self.parent).read_dir_utf8().ok())
            .flatten()
            .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir()))
            .map(|entry| entry.file_name().to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn group(&self, controller: &str, id: &str) -> Option<Utf8PathBuf> {
        let has = |hierarchy: &&Hierarchy| {
            hierarchy.unified || hierarchy.options.split(',').any(|o| o == controller)
        };
        let hierarchy = self.hierarchies.iter().find(has)?;
        Some(hierarchy.mount.join(&self.parent).join(id))
    }

    fn processes(&self, id: &str) -> u32 {
        self.group("pids", id)
            .map_or(0, |group| pids_in(&group).len() as u32)
    }

    fn memory(&self, id: &str, used: &str, cache: &str) -> u64 {
        let used = self.number("memory", id, used).unwrap_or(0);
        used.saturating_sub(self.field("memory", id, "memory.stat", cache).unwrap_or(0))
    }

    fn number(&self, controller: &str, id: &str, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.group(controller, id)?.join(file)).ok()?;
        text.trim().parse().ok()
    }

    fn field(&self, controller: &str, id: &str, file: &str, field: &str) -> Option<u64> {
        let text = fs::read_to_string(self.group(controller, id)?.join(file)).ok()?;
        field_of(&text, field)
    }
}

/// Where the unified hierarchy is mounted beside those of version 1.
pub fn hybrid_mount() -> Option<Utf8PathBuf> {
    let all = mounted();
    let hybrid = all.iter().any(|hierarchy| !hierarchy.unified);
    let mut unified = all.into_iter().filter(|hierarchy| hierarchy.unified);
    unified.next().filter(|_| hybrid).map(|hierarchy| hierarchy.mount)
}

fn mounted() -> Vec<Hierarchy> {
    let text: io::Result<String> = fs::read_to_string("/proc/thread-self/mountinfo");
    hierarchies_in(&text.unwrap_or_default())
}

/// `proc_pid_mountinfo(5)`: `id parent major:minor root point options [tags…] - type source superoptions`.
fn hierarchies_in(mountinfo: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mount = before.split(' ').nth(4)?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        let options = after.nth(1)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| Hierarchy {
            mount: mount.into(),
            options: options.to_owned(),
            unified: kind == "cgroup2",
        })
    };
    let mut all: Vec<Hierarchy> = mountinfo.lines().filter_map(parse).collect();
    // What a container of ours or another's has mounted of them is not where groups are made.
    all.retain(|hierarchy| hierarchy.mount.starts_with("/sys/fs/cgroup"));
    all
}

fn pids_in(group: &Utf8Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn field_of(text: &str, field: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == field)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies_of_every_kind_of_machine() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let found = hierarchies_in(hybrid);
        assert_eq!(found.len(), 2);
        assert!(!found[0].unified && found[0].options == "rw,memory");
        assert!(found[1].unified && found[1].mount == "/sys/fs/cgroup/unified");

        let pure = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(hierarchies_in(pure).len(), 1);
        assert_eq!(hierarchies_in("garbage\n\n - \n1 2 3 - cgroup"), []);
    }

    #[test]
    fn reads_counters() {
        assert_eq!(
            field_of("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"),
            Some(2)
        );
        assert_eq!(field_of("low 0\noom 3", "oom_kill"), None);
    }
}
