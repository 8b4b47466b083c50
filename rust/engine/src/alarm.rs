//! A timer that is set once and looked at often.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// A deadline that mostly moves on before it comes.
///
/// Setting a timer costs a lock and a place in the runtime's wheel. So it is left where it is while the deadline moves away from it; when it
/// fires too early, it is set again. A connection that serves a thousand requests a second sets its timer once a minute.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `deadline`. Dropped or left alone, it does nothing.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        #[cfg(test)]
        if crate::simulation::sabotaged(crate::simulation::Sabotage::NeverRings) {
            return Poll::Pending;
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_last_deadline_that_it_was_asked_for() {
        let mut alarm = Alarm::default();
        let now = Instant::now;
        let (soon, late) = (now() + Duration::from_secs(20), now() + Duration::from_secs(60));
        let mut asked = 0;
        std::future::poll_fn(|context| {
            asked += 1;
            // It is set for the earlier one, which has moved on when it fires.
            alarm.poll(context, if asked == 1 { soon } else { late })
        })
        .await;
        assert!(now() >= late);
        let sooner = now() + Duration::from_secs(5);
        std::future::poll_fn(|context| {
            let _ = alarm.poll(context, sooner + Duration::from_secs(3600));
            alarm.poll(context, sooner)
        })
        .await;
        assert!(now() >= sooner && now() < sooner + Duration::from_secs(60));
    }
}
