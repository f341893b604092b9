//! How often a name was given back. The name of a tenant or an app that is deleted may be another customer's next: what was
//! made under it stays for whoever runs on it, and is found by the name and this number together, so by nobody any more.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{AppName, Place, TenantName};

use crate::{
    cache::random,
    layer::{Error, io_error},
};

/// Files under `<node>/lives`, named as a tenant or `TENANT+APP`, each with a number as text. There is none before the
/// first of a name is deleted.
#[derive(Debug, Clone)]
pub(crate) struct Lives(Utf8PathBuf);

/// Which of those that had one name it is. Read once for all of an order: what a deleted one's still makes is its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub tenant: u64,
    pub app: u64,
}

/// Behind a name: nothing for the first that has it.
impl fmt::Display for Life {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self == Self::default() {
            true => Ok(()),
            false => write!(to, "-{}.{}", self.tenant, self.app),
        }
    }
}

impl Lives {
    /// Those under `<data>/node`. What an interrupted node was writing is removed.
    pub fn open(node: &Utf8Path) -> Result<Self, Error> {
        let root = node.join("lives");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        for entry in root.read_dir_utf8().map_err(io_error("read", &root))? {
            let entry = entry.map_err(io_error("read", &root))?;
            if entry.file_name().starts_with('.') {
                fs::remove_file(entry.path()).map_err(io_error("remove", entry.path()))?;
            }
        }
        Ok(Self(root))
    }

    pub fn of(&self, place: &Place) -> Result<Life, Error> {
        Ok(Life {
            tenant: self.of_tenant(&place.tenant)?,
            app: self.number(&name(&place.tenant, Some(&place.app)))?,
        })
    }

    pub fn of_tenant(&self, tenant: &TenantName) -> Result<u64, Error> {
        self.number(&name(tenant, None))
    }

    /// Whoever has the name from now on is another one. Durable.
    pub fn end(&self, tenant: &TenantName, app: Option<&AppName>) -> Result<(), Error> {
        let name = name(tenant, app);
        let next = self.number(&name)? + 1;
        let new = self.0.join(format!(".{}", random()));
        File::create(&new)
            .and_then(|mut file| {
                file.write_all(next.to_string().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, self.0.join(name)))
            .and_then(|()| File::open(&self.0)?.sync_all())
            .map_err(io_error("write", &new))
    }

    /// One that cannot be read is an error: to begin anew would give what was kept to somebody else.
    fn number(&self, name: &str) -> Result<u64, Error> {
        let path = self.0.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let wrong = |error| io_error("read", &path)(io::Error::new(io::ErrorKind::InvalidData, error));
        text.parse().map_err(wrong)
    }
}

/// No name has a `+` in it.
fn name(tenant: &TenantName, app: Option<&AppName>) -> String {
    match app {
        Some(app) => format!("{tenant}+{app}"),
        None => tenant.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_given_back_is_another_s() {
        let node = tempfile::tempdir().unwrap();
        let node = Utf8Path::from_path(node.path()).unwrap();
        let lives = Lives::open(node).unwrap();
        let [shop, site]: [Place; 2] = ["acme/shop/dev", "acme/site/dev"].map(|place| place.parse().unwrap());
        let check = |expected: [&str; 2]| {
            // As it is after a restart, too.
            for lives in [&lives, &Lives::open(node).unwrap()] {
                let all = [&shop, &site].map(|place| lives.of(place).unwrap().to_string());
                assert_eq!(all, expected);
            }
        };
        check(["", ""]);
        lives.end(&shop.tenant, Some(&shop.app)).unwrap();
        check(["-0.1", ""]);
        lives.end(&shop.tenant, None).unwrap();
        check(["-1.1", "-1.0"]);
        lives.end(&shop.tenant, Some(&shop.app)).unwrap();
        check(["-1.2", "-1.0"]);
        fs::write(node.join("lives/acme"), "").unwrap();
        assert!(lives.of(&shop).is_err());
    }
}
