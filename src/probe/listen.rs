//! `flagcast listen`: keeps a stream open as a client does, opens a second one a little later, and
//! ends with a report.
//!
//! It must not add to the trouble that it looks for: it waits before it comes back, longer each
//! time that a stream was over at once.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, header};

use super::events::Item;
use super::figures::IMMEDIATE;
use super::record::{Answer, Record, Role};
use super::report::{self, EndedBy, Form, Report};
use super::subscribe::{Events, Options, Subscriber, What};
use super::{StreamUrl, UsageError};
use crate::shutdown::Signals;

/// The second client comes after a third of the time, but not later than this. After less than
/// `LATE_MIN` nobody can tell it from the first: `Date` and `Age` have whole seconds.
const LATE_MAX: Duration = Duration::from_secs(3);
const LATE_MIN: Duration = Duration::from_millis(1200);

/// The wait before coming back: what the stream said, within these bounds.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(3);
const PAUSE_UNTOLD: Duration = Duration::from_secs(1);

/// Longest wait after streams that were over at once.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// What to listen to.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The stream.
    pub url: StreamUrl,
    /// For how long; without it, until a signal.
    pub lasting: Option<Duration>,
    /// How the report is written.
    pub form: Form,
    /// How to subscribe.
    pub options: Options,
}

/// Listens and reports on standard output. Tells whether nothing bad was found.
pub async fn listen(listen: Listen) -> anyhow::Result<bool> {
    let first = Subscriber::new(&listen.url, &listen.options)?;
    let second = second(&listen)?;
    let mut signals = Signals::listen()?;
    let session = RefCell::new(Session::begin(&listen));
    let until = async {
        match listen.lasting {
            Some(lasting) => tokio::time::sleep(lasting).await,
            None => std::future::pending().await,
        }
    };
    let ended_by = tokio::select! {
        ended = keep_open(&session, &first) => ended.map(|()| EndedBy::Full),
        Err(error) = join_late(&session, &second, listen.lasting) => Err(error),
        () = until => Ok(EndedBy::Time),
        () = signals.next() => Ok(EndedBy::Signal),
    };
    let session = session.into_inner();
    let reported = ended_by.and_then(|ended_by| session.report(ended_by, listen.form));
    match reported {
        // Whoever read it has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        reported => Ok(reported?),
    }
}

/// Another client: it has its own connections and comes from a page of another origin.
fn second(listen: &Listen) -> Result<Subscriber, UsageError> {
    let mut options = listen.options.clone();
    let other = HeaderValue::from_static("https://other.example.com");
    options.headers.entry(header::ORIGIN).or_insert(other);
    Subscriber::new(&listen.url, &options)
}

/// Reads stream after stream, until the record is full.
async fn keep_open(session: &RefCell<Session>, subscriber: &Subscriber) -> io::Result<()> {
    let (mut role, mut last_id, mut failures) = (Role::First, String::new(), 0);
    loop {
        let visit = visit(session, subscriber, role, &mut last_id).await?;
        if session.borrow().record.is_full {
            return Ok(());
        }
        failures = if visit.is_failure { failures + 1 } else { 0 };
        tokio::time::sleep(pause(visit.told_to_wait, failures)).await;
        role = Role::Again;
    }
}

/// Reads one stream that begins while the first is open, and never completes but by an error.
async fn join_late(
    session: &RefCell<Session>,
    subscriber: &Subscriber,
    lasting: Option<Duration>,
) -> io::Result<()> {
    let delay = lasting.map_or(LATE_MAX, |lasting| (lasting / 3).clamp(LATE_MIN, LATE_MAX));
    tokio::time::sleep(delay).await;
    visit(session, subscriber, Role::Late, &mut String::new()).await?;
    std::future::pending().await
}

/// How long to wait before coming back.
fn pause(told: Option<Duration>, failures: u32) -> Duration {
    let pause = told.unwrap_or(PAUSE_UNTOLD).clamp(PAUSE_MIN, PAUSE_MAX);
    let doublings = failures.saturating_sub(1).min(10);
    (pause * 2_u32.pow(doublings)).min(BACK_OFF_MAX)
}

/// How a stream went, for what comes next.
struct Visit {
    is_failure: bool,
    told_to_wait: Option<Duration>,
}

/// Opens a stream and reads it to its end.
async fn visit(
    session: &RefCell<Session>,
    subscriber: &Subscriber,
    role: Role,
    last_id: &mut String,
) -> io::Result<Visit> {
    let number = session.borrow_mut().asked(role)?;
    let mut visit = Visit { is_failure: true, told_to_wait: None };
    let (head, mut events) = match subscriber.open(last_id).await {
        Ok(open) => open,
        Err(refused) => {
            let mut session = session.borrow_mut();
            session.line(number, "refused", &refused.cause)?;
            let at = session.now();
            session.record.answered(number, Answer::Refused(at, refused));
            return Ok(visit);
        }
    };
    let opened_at = head.arrived_at.0;
    {
        let mut session = session.borrow_mut();
        session.line(number, "head", &report::head_line(&head))?;
        let at = session.at(opened_at);
        session.record.answered(number, Answer::Head(at, Box::new(head)));
    }
    read(session, number, &mut events, &mut visit, last_id).await?;
    visit.is_failure |= opened_at.elapsed().as_secs_f64() < IMMEDIATE;
    Ok(visit)
}

async fn read(
    session: &RefCell<Session>,
    number: usize,
    events: &mut Events,
    visit: &mut Visit,
    last_id: &mut String,
) -> io::Result<()> {
    while let Some(next) = events.next().await {
        let mut session = session.borrow_mut();
        let at = session.at(next.at);
        session.record.lasted = at;
        match next.what {
            What::Bytes(_) => {
                visit.is_failure = false;
                session.record.read(number, at);
            }
            What::Item(item) => {
                if let Item::Event(event) = &item {
                    event.id.clone_into(last_id);
                }
                if let Item::Retry(wait) = &item {
                    visit.told_to_wait = Some(*wait);
                }
                let (kind, detail) = report::item_line(&item);
                session.line(number, kind, &detail)?;
                session.record.arrived(number, at, &item);
                if session.record.is_full {
                    return Ok(());
                }
            }
            What::End(end) => {
                session.line(number, "end", &report::end_line(&end))?;
                session.record.ended(number, at, end);
            }
        }
    }
    Ok(())
}

/// The record, its clock, and what is shown of it while it grows.
struct Session {
    began: Instant,
    record: Record,
    form: Form,
    /// When each stream last showed something.
    shown: Vec<f64>,
}

impl Session {
    fn begin(listen: &Listen) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record::begin(listen.url.to_string(), wall.as_secs_f64());
        Self { began: Instant::now(), record, form: listen.form, shown: Vec::new() }
    }

    /// An instant in seconds since the listening began.
    fn at(&self, instant: Instant) -> f64 {
        instant.saturating_duration_since(self.began).as_secs_f64()
    }

    fn now(&self) -> f64 {
        self.at(Instant::now())
    }

    fn asked(&mut self, role: Role) -> io::Result<usize> {
        let now = self.now();
        let number = self.record.asked(role, now);
        self.shown.push(now);
        let why = match role {
            Role::First => "a client subscribes",
            Role::Again => "it comes back",
            Role::Late => "a second client subscribes",
        };
        self.line(number, "ask", why)?;
        Ok(number)
    }

    /// Shows one line: when, which stream, what, and how long after the line before of that stream.
    fn line(&mut self, number: usize, kind: &str, detail: &str) -> io::Result<()> {
        if self.form == Form::Json {
            return Ok(());
        }
        let now = self.now();
        let gap = now - std::mem::replace(&mut self.shown[number], now);
        let number = number + 1;
        let mut out = io::stdout().lock();
        writeln!(out, "{now:>9.3} s  +{gap:<7.3}  #{number:<2}  {kind:<8}  {detail}")?;
        out.flush()
    }

    fn report(mut self, ended_by: EndedBy, form: Form) -> io::Result<bool> {
        if ended_by != EndedBy::Full {
            self.record.lasted = self.now();
        }
        let report = Report::of(&self.record, ended_by);
        let mut out = io::stdout().lock();
        match form {
            Form::Text => report.write_text(&mut out)?,
            Form::Json => report.write_json(&mut out)?,
        }
        out.flush()?;
        Ok(report.is_good())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_when_it_was_told_but_never_in_a_hurry() {
        let ms = Duration::from_millis;
        assert_eq!(pause(None, 0), PAUSE_UNTOLD);
        assert_eq!(pause(Some(ms(500)), 0), ms(500));
        assert_eq!(pause(Some(ms(0)), 1), PAUSE_MIN);
        assert_eq!(pause(Some(ms(15_000)), 0), PAUSE_MAX);
        assert_eq!(pause(Some(ms(500)), 3), ms(2000));
        assert_eq!(pause(Some(ms(500)), 1000), BACK_OFF_MAX);
    }
}
