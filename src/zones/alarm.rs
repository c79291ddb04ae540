use super::timeline::Ticks;

/// What a rule forbids, from when it holds until it no longer does.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarm {
    since: Option<Ticks>,
    alert: Option<Alert>,
}

#[derive(Debug, Clone, Copy)]
struct Alert {
    started: Ticks,
    last: Ticks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Started,
    /// After so long, up to the last frame that showed it.
    Ended(Ticks),
}

/// How a frame finds what a rule forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is not there.
    No,
    /// It is, as far as is known: this frame does not show it, but earlier ones did.
    Remembered,
    /// This frame shows it.
    Shown,
}

impl Alarm {
    /// Takes in what a frame found. `begun` is when that began, if it is new; an alert starts after `patience`, and only
    /// with a frame that shows it.
    pub(super) fn update(&mut self, now: Ticks, begun: Ticks, found: Found, patience: Ticks) -> Option<Change> {
        if found == Found::No {
            self.since = None;
            return self.end().map(Change::Ended);
        }
        if found == Found::Remembered {
            return None;
        }
        let since = *self.since.get_or_insert(begun);
        if let Some(alert) = &mut self.alert {
            alert.last = now;
            return None;
        }
        if now - since < patience {
            return None;
        }
        self.alert = Some(Alert { started: now, last: now });
        Some(Change::Started)
    }

    /// Ends the alert, if there is one: how long it was.
    pub(super) fn end(&mut self) -> Option<Ticks> {
        self.alert.take().map(|alert| alert.last - alert.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_starts_once_after_its_time_and_ends_once() {
        let mut alarm = Alarm::default();
        let mut changes = Vec::new();
        for now in 0..20 {
            let found = match now {
                12 | 13 => Found::Remembered,
                1..=15 => Found::Shown,
                _ => Found::No,
            };
            changes.extend(alarm.update(now, now, found, 5).map(|change| (now, change)));
        }
        assert_eq!(changes, [(6, Change::Started), (16, Change::Ended(9))]);
    }

    #[test]
    fn what_no_frame_shows_starts_no_alert() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.update(0, 0, Found::Shown, 2), None);
        assert!((1..9).all(|now| alarm.update(now, now, Found::Remembered, 2).is_none()));
        assert_eq!(alarm.update(9, 9, Found::Shown, 2), Some(Change::Started));
        assert_eq!(Alarm::default().update(7, 3, Found::Shown, 4), Some(Change::Started));
    }
}
