//! Express executions that are nobody's children: in memory only, so many at a time, and not for long.

use std::collections::hash_map::Entry;

use crate::{
    Engine, Error,
    handle::{Answer, Start},
    live::{Express, Live},
    timers::Due,
};

impl Engine {
    pub(crate) fn begin_express(&mut self, start: Start, answer: Answer<crate::Ended>) -> Result<(), Error> {
        let (most, open) = (
            self.setup.limits.express_open,
            self.quick.entry(start.owner).or_default(),
        );
        if *open >= most {
            return Err(Error::Full(most));
        }
        *open += 1;
        self.express += 1;
        let (key, at) = (self.express, self.now());
        let mut live = Live::new(start.owner, start.program.clone(), at);
        live.express = Some(Box::new(Express {
            started_at: at,
            answer: Some(answer),
        }));
        self.insert(key, live);
        self.timers
            .keep(at + self.setup.limits.express, Due::Express { execution: key });
        let event = self.first(start);
        self.happen(key, event);
        Ok(())
    }

    pub(crate) fn express_over(&mut self, key: u64, status: asl::Status) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        let Some(express) = live.express.take() else {
            return;
        };
        let ended = crate::Ended {
            started_at: express.started_at,
            ended_at: express.started_at + self.setup.limits.express,
            status,
        };
        let (owner, kin) = (live.owner, live.kin);
        if let Some(kin) = kin {
            self.express_child_over(owner, kin, ended.started_at, ended.ended_at, ended.status);
        } else {
            self.express_gone(owner);
            if let Some(answer) = express.answer {
                let _ = answer.send(Ok(ended));
            }
        }
        self.finish(key);
    }

    /// An express execution of its own is no more.
    pub(crate) fn express_gone(&mut self, owner: u64) {
        if let Entry::Occupied(mut open) = self.quick.entry(owner) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}
