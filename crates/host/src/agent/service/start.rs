//! The start of a service, which may take its time, and what becomes of it when somebody asks for another thing meanwhile.

use std::time::Duration;

use super::{
    Answer, Ask, Letter, News, Phase, Supervisor, Wish,
    launch::{self, Main, Started},
};
use crate::agent::{api::ServiceState, reaper::Exit, trace::Trace};

/// What became of a start.
enum Attempt {
    Ended(Result<(), String>),
    /// By a stop or a restart that was asked for, or because the agent ends.
    Broken(Option<Ask>),
}

impl Supervisor {
    /// Starts it, unless somebody asks to stop it meanwhile. Asked to restart it, it begins anew.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        let mut starters = Vec::new();
        let mut restarters = Vec::new();
        let outcome = loop {
            match self.attempt(&mut starters).await {
                Attempt::Ended(outcome) => break outcome,
                Attempt::Broken(Some(Ask {
                    wish: Wish::Restart,
                    answer,
                })) => restarters.push(answer),
                Attempt::Broken(asked) => {
                    self.enter(ServiceState::Inactive, "dead", None);
                    if let Some(ask) = asked {
                        // Whoever asked may have left.
                        let _ = ask.answer.send(Ok(()));
                    }
                    break Err("it was stopped while it started".to_owned());
                }
            }
        };
        for answer in starters.into_iter().chain(restarters) {
            let _ = answer.send(outcome.clone());
        }
        for ask in std::mem::take(&mut self.later) {
            Box::pin(self.answer(ask)).await;
        }
        outcome
    }

    /// One start, up to its end or to whoever wants none.
    async fn attempt(&mut self, starters: &mut Vec<Answer>) -> Attempt {
        self.phase = Phase::Idle;
        self.enter(ServiceState::Activating, "start", None);
        let invocation = launch::invocation();
        self.leave(&Trace::begins(&self.definition.unit.name, &invocation));
        let begun = launch::Begun::default();
        let mut defined = None;
        let outcome = {
            let starting = launch::start(&self.definition, &self.surroundings, &invocation, &begun);
            tokio::pin!(starting);
            loop {
                let letter = tokio::select! {
                    outcome = &mut starting => break Ok(outcome),
                    letter = self.inbox.recv() => letter,
                };
                match letter {
                    Some(Letter::Ask(ask)) => match ask.wish {
                        Wish::Start | Wish::Wake | Wish::Again => starters.push(ask.answer),
                        Wish::Stop | Wish::Yield | Wish::Restart => break Err(Some(ask)),
                        Wish::Define(definition) => {
                            defined = Some(*definition);
                            let _ = ask.answer.send(Ok(()));
                        }
                        Wish::Signal(signal, _) => {
                            launch::signal_begun(&begun, &invocation, signal);
                            let _ = ask.answer.send(Ok(()));
                        }
                        Wish::Reload | Wish::ResetFailed | Wish::Missed(_) | Wish::Hear => {
                            self.later.push(ask)
                        }
                    },
                    // What it will be is not known yet.
                    Some(Letter::Hold(hold)) => self.holds.push(hold),
                    None => break Err(None),
                }
            }
        };
        let attempt = match outcome {
            Ok(outcome) => Attempt::Ended(self.started(outcome, &begun, &invocation).await),
            Err(asked) => {
                self.surroundings.note("it is stopped while it starts");
                self.enter(ServiceState::Deactivating, "stop-sigterm", None);
                self.clear_away(&begun, &invocation).await;
                Attempt::Broken(asked)
            }
        };
        if let Some(definition) = defined {
            self.define(definition);
        }
        attempt
    }

    /// Leaves a trace of what runs.
    pub(super) fn mark(&self, main: &Main) {
        let trace = Trace::begins(&self.definition.unit.name, &main.invocation);
        self.leave(&trace.runs(main.pid, main.session, main.output.as_ref()));
    }

    fn leave(&self, trace: &Trace) {
        if let Some(path) = &self.surroundings.trace
            && let Err(error) = trace.write(path)
        {
            self.surroundings
                .note(&format!("an agent after this one will not find it: {error}"));
        }
    }

    /// What a start that came to nothing leaves behind goes.
    async fn clear_away(&self, begun: &launch::Begun, invocation: &str) {
        let (definition, around) = (&self.definition, &self.surroundings);
        launch::abandon(&definition.unit, around, begun, invocation).await;
        launch::after(definition, around, invocation, Exit::Unknown).await;
    }

    async fn started(
        &mut self,
        outcome: Result<Started, String>,
        begun: &launch::Begun,
        invocation: &str,
    ) -> Result<(), String> {
        match outcome {
            Ok(Started::Runs(main)) => {
                self.surroundings.note(&format!("started, pid {}", main.pid));
                self.mark(&main);
                self.enter(ServiceState::Active, "running", Some(main.pid.cast_unsigned()));
                self.phase = Phase::Up(main);
                Ok(())
            }
            Ok(Started::Finished) if self.definition.unit.remain_after_exit => {
                self.enter(ServiceState::Active, "exited", None);
                self.phase = Phase::Done;
                Ok(())
            }
            Ok(how @ (Started::Finished | Started::Skipped)) => {
                if matches!(how, Started::Finished) {
                    // It has started, so it stops (`systemd.service(5)`, `ExecStop=`).
                    launch::stop_lines(&self.definition, &self.surroundings, None).await;
                    launch::after(&self.definition, &self.surroundings, invocation, Exit::Code(0)).await;
                }
                self.enter(ServiceState::Inactive, "dead", None);
                self.tell(match how {
                    Started::Skipped => News::Skipped,
                    _ => News::Gone,
                });
                Ok(())
            }
            Err(why) => {
                self.surroundings.note(&format!("did not start: {why}"));
                self.tell(News::Gone);
                self.clear_away(begun, invocation).await;
                self.publish(|status| status.last_exit = Some(why.clone()));
                self.after_end(Exit::Unknown, Duration::ZERO);
                Err(why)
            }
        }
    }
}
