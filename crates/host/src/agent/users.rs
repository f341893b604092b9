//! Users and groups of a host, read from its own files: a static binary has no name service switch.

use std::{collections::BTreeSet, fs, path::PathBuf};

/// Largest user database that is read.
const LIMIT: u64 = 8 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub name: Option<String>,
    pub home: Option<String>,
    pub shell: Option<String>,
}

/// `/etc/passwd` and `/etc/group`, as they are at one moment.
#[derive(Debug, Clone, Default)]
pub struct Users {
    pub users: Vec<User>,
    pub groups: Vec<Group>,
}

impl Users {
    pub fn read() -> Self {
        Self::parse(&bounded("/etc/passwd"), &bounded("/etc/group"))
    }

    /// Lines that are not entries are passed over.
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_line).collect(),
        }
    }

    /// By name, or by number.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name).or_else(|| {
            let uid: u32 = name.parse().ok()?;
            self.users.iter().find(|user| user.uid == uid)
        })
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name).or_else(|| {
            let gid: u32 = name.parse().ok()?;
            self.groups.iter().find(|group| group.gid == gid)
        })
    }

    pub fn user_name(&self, uid: u32) -> Option<&str> {
        self.users
            .iter()
            .find(|user| user.uid == uid)
            .map(|user| user.name.as_str())
    }

    pub fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups
            .iter()
            .find(|group| group.gid == gid)
            .map(|group| group.name.as_str())
    }

    /// Names of the groups that a user is in, its own first.
    pub fn groups_of(&self, user: &User) -> Vec<&str> {
        let own = self.groups.iter().filter(|group| group.gid == user.gid);
        let others = self
            .groups
            .iter()
            .filter(|group| group.gid != user.gid && group.members.contains(&user.name));
        own.chain(others).map(|group| group.name.as_str()).collect()
    }

    /// The identity of a user (name or number; a number needs no entry) and optionally another main group.
    pub fn identity(&self, user: &str, group: Option<&str>) -> Option<Identity> {
        let gid_of = |name: &str| {
            self.group(name)
                .map(|group| group.gid)
                .or_else(|| name.parse().ok())
        };
        let mut identity = match self.user(user) {
            Some(user) => Identity {
                uid: user.uid,
                gid: user.gid,
                groups: self
                    .groups
                    .iter()
                    .filter(|group| group.gid == user.gid || group.members.contains(&user.name))
                    .map(|group| group.gid)
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                name: Some(user.name.clone()),
                home: Some(user.home.clone()),
                shell: Some(user.shell.clone()),
            },
            None => {
                let uid: u32 = user.parse().ok()?;
                Identity {
                    uid,
                    gid: uid,
                    groups: Vec::new(),
                    name: None,
                    home: None,
                    shell: None,
                }
            }
        };
        if let Some(group) = group {
            identity.gid = gid_of(group)?;
        }
        Some(identity)
    }
}

fn bounded(path: &str) -> String {
    let small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= LIMIT);
    let bytes = if small {
        fs::read(PathBuf::from(path)).unwrap_or_default()
    } else {
        Vec::new()
    };
    String::from_utf8_lossy(&bytes).into_owned()
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    Some(User {
        name: fields.next().filter(|name| !name.is_empty())?.to_owned(),
        uid: fields.nth(1)?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
        home: fields.nth(1)?.to_owned(),
        shell: fields.next().unwrap_or_default().to_owned(),
    })
}

fn group_line(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    Some(Group {
        name: fields.next().filter(|name| !name.is_empty())?.to_owned(),
        gid: fields.nth(1)?.parse().ok()?,
        members: fields
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|member| !member.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users_with_all_their_groups() {
        let users = Users::parse(
            "root:x:0:0:root:/root:/bin/sh\nbroken\nshop:x:1000:1000::/srv:/bin/false\n",
            "root:x:0:\nadm:x:4:shop,root\nshop:x:1000:\n",
        );
        let shop = users.identity("shop", None).unwrap();
        assert_eq!((shop.uid, shop.gid, shop.groups), (1000, 1000, vec![4, 1000]));
        assert_eq!(users.identity("shop", Some("adm")).unwrap().gid, 4);
        assert_eq!(users.identity("77", None).unwrap().uid, 77);
        assert_eq!(users.identity("nobody-here", None), None);
        assert_eq!(users.groups_of(users.user("shop").unwrap()), ["shop", "adm"]);
    }
}
