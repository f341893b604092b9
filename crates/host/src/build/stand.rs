//! What the container of a build stands on, made or got where it is not there yet.

use model::{
    Secret,
    port::{Baked, LogRef},
};

use super::{
    Error, Once, Yard,
    choice::{self, Choice},
    console::Console,
};
use crate::{
    bake::{self, Bare, Held, Looks},
    base,
    queue::Place,
    ticket::Stop,
};

impl Yard {
    pub(super) async fn image(
        &self,
        once: Once<'_>,
        choice: Choice<'_>,
        place: &mut Place,
        console: &mut Console,
        stop: &mut Stop,
    ) -> Result<Held, Error> {
        let oven = self.0.oven.clone();
        let (system, tools) = match choice {
            Choice::Base(base) => {
                let login = choice::login(once.order, base).cloned();
                let base = choice::named(base);
                console.line(&format!("The build runs in {base}"));
                let bare = self.bare(once, base, login, place, console, stop).await?;
                if let Some(why) = bare.old {
                    console.line(&format!(
                        "It is the image that is here; what it is now is not known: {why}"
                    ));
                }
                return Ok(bare.image);
            }
            Choice::Standard { system, tools } => (system, tools),
        };
        // What builds in `standard` stand on is the platform's, which no sweep takes.
        if let Some(image) = oven.find_toolbox(system, &tools)? {
            return Ok(oven.hold(image));
        }
        let names: Vec<&str> = ["standard", system]
            .into_iter()
            .chain(tools.iter().map(String::as_str))
            .collect();
        let log = names.join("-");
        let own: LogRef = format!("bake/platform-{log}")
            .parse()
            .expect("names of systems and versions are of names' letters");
        let kept = match self.0.apart {
            true => format!("its log stays on this builder: {}", self.0.logs.told(&own)),
            false => format!("its log is {own}"),
        };
        console.line(&format!(
            "Waiting for the build image with {}, which is made once on this machine ({kept})",
            names.join(", ")
        ));
        // Every build needs it: it is made to its end, whoever stops waiting.
        let made = tokio::spawn(async move { oven.toolbox(system, &tools, &log).await });
        let held = |made: Baked| self.0.oven.hold(made.image);
        tokio::select! {
            made = made => Ok(held(made.map_err(|_| Error::Interrupted)?.map_err(Error::Image)?)),
            reason = stop.asked() => Err(Error::Stopped(reason)),
        }
    }

    /// The image that a build names itself. Where there is no room for it, the build waits, and others have its place
    /// meanwhile.
    async fn bare(
        &self,
        Once {
            ticket, order, life, ..
        }: Once<'_>,
        base: String,
        login: Option<Secret>,
        place: &mut Place,
        console: &mut Console,
        stop: &mut Stop,
    ) -> Result<Bare, Error> {
        let mut looks = Looks::default();
        let until = tokio::time::Instant::now() + self.0.queued;
        loop {
            let (oven, base, login) = (self.0.oven.clone(), base.clone(), login.clone());
            let tenant = order.place.tenant.clone();
            let made =
                tokio::spawn(async move { oven.bare(&base, (&tenant, life.tenant), login.as_ref()).await });
            let made = tokio::select! {
                made = made => made.map_err(|_| Error::Interrupted)?,
                reason = stop.asked() => return Err(Error::Stopped(reason)),
            };
            let full = match made {
                Err(bake::Error::Base(full @ base::Error::NoRoom { .. })) => full,
                made => return made.map_err(|error| Error::Image(error.into())),
            };
            let say = |line: &str| console.line(line);
            let room = self.0.oven.wait_for_room(&mut looks, full, say);
            let waited = tokio::select! {
                waited = place.lend(Some(ticket), room) => waited,
                reason = stop.asked() => return Err(Error::Stopped(reason)),
                () = tokio::time::sleep_until(until) => return Err(Error::Queued(self.0.queued)),
            };
            waited.map_err(|error| Error::Image(error.into()))?;
        }
    }
}
