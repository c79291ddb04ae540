//! Statements that both databases understand, once for each.

/// Columns of events and minutes, in the order in which they are inserted.
pub(super) const EVENT_COLUMNS: &str = "id, time_ms, session, camera, kind, zone, line, rule, class, object_id, json";
pub(super) const MINUTE_COLUMNS: &str = "id, time_ms, session, camera, model, frames, results, met, objects, counts";

macro_rules! queries {
    ($name:ident, $Database:ty) => {
        pub(super) mod $name {
            use futures_util::TryStreamExt as _;
            use sqlx::{Database, Error, Pool, QueryBuilder, Row as _};

            use super::{EVENT_COLUMNS, MINUTE_COLUMNS, number};
            use crate::history::query::{Events, Order, Points, Stats};
            use crate::history::record::{Counts, Event, Minute, Record};
            use crate::history::store;

            type Row = <$Database as Database>::Row;

            pub(in crate::history::store) async fn insert(
                connection: &mut <$Database as Database>::Connection,
                records: &[Record],
            ) -> Result<(), Error> {
                let (mut events, mut minutes) = (Vec::new(), Vec::new());
                for record in records {
                    match record {
                        Record::Event(event) => events.push(event),
                        Record::Minute(minute) => minutes.push(minute),
                    }
                }
                if !events.is_empty() {
                    let mut query =
                        QueryBuilder::<$Database>::new(format!("INSERT INTO saccade_events ({EVENT_COLUMNS}) "));
                    query.push_values(events, |mut row, event: &Event| {
                        row.push_bind(event.id.clone())
                            .push_bind(event.time_ms)
                            .push_bind(event.session.clone())
                            .push_bind(event.camera.clone())
                            .push_bind(event.kind.clone())
                            .push_bind(event.zone.clone())
                            .push_bind(event.line.clone())
                            .push_bind(event.rule.clone())
                            .push_bind(event.class.clone())
                            .push_bind(event.object_id)
                            .push_bind(event.json.clone());
                    });
                    query.push(" ON CONFLICT DO NOTHING");
                    query.build().persistent(false).execute(&mut *connection).await?;
                }
                if !minutes.is_empty() {
                    let mut query =
                        QueryBuilder::<$Database>::new(format!("INSERT INTO saccade_minutes ({MINUTE_COLUMNS}) "));
                    query.push_values(minutes, |mut row, minute: &Minute| {
                        let counts = serde_json::to_string(&minute.counts).unwrap_or_default();
                        row.push_bind(minute.id.clone())
                            .push_bind(minute.time_ms)
                            .push_bind(minute.session.clone())
                            .push_bind(minute.camera.clone())
                            .push_bind(minute.model.clone())
                            .push_bind(number(minute.counts.frames))
                            .push_bind(number(minute.counts.results))
                            .push_bind(number(minute.counts.met))
                            .push_bind(number(minute.counts.objects))
                            .push_bind(counts);
                    });
                    query.push(" ON CONFLICT DO NOTHING");
                    query.build().persistent(false).execute(&mut *connection).await?;
                }
                Ok(())
            }

            pub(in crate::history::store) async fn events(
                pool: &Pool<$Database>,
                asked: &Events,
                limit: u32,
            ) -> Result<Vec<Event>, Error> {
                let select = format!("SELECT {EVENT_COLUMNS} FROM saccade_events WHERE time_ms >= ");
                let mut query = QueryBuilder::<$Database>::new(select);
                query.push_bind(asked.from_ms.unwrap_or(0));
                query.push(" AND time_ms < ").push_bind(asked.to_ms.unwrap_or(i64::MAX));
                for (column, value) in [
                    ("session", &asked.session),
                    ("camera", &asked.camera),
                    ("kind", &asked.kind),
                    ("zone", &asked.zone),
                    ("line", &asked.line),
                    ("rule", &asked.rule),
                    ("class", &asked.class),
                ] {
                    if let Some(value) = value {
                        query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
                    }
                }
                let (beyond, way) = match asked.order {
                    Order::Ascending => (">", "ASC"),
                    Order::Descending => ("<", "DESC"),
                };
                if let Some(after) = &asked.after {
                    query.push(format_args!(" AND (time_ms, id) {beyond} (")).push_bind(after.time_ms);
                    query.push(", ").push_bind(after.id.clone()).push(")");
                }
                query.push(format_args!(" ORDER BY time_ms {way}, id {way} LIMIT ")).push_bind(i64::from(limit));
                let rows = query.build().fetch_all(pool).await?;
                rows.iter().map(event).collect()
            }

            fn event(row: &Row) -> Result<Event, Error> {
                Ok(Event {
                    id: row.try_get("id")?,
                    time_ms: row.try_get("time_ms")?,
                    session: row.try_get("session")?,
                    camera: row.try_get("camera")?,
                    kind: row.try_get("kind")?,
                    zone: row.try_get("zone")?,
                    line: row.try_get("line")?,
                    rule: row.try_get("rule")?,
                    class: row.try_get("class")?,
                    object_id: row.try_get("object_id")?,
                    json: row.try_get("json")?,
                })
            }

            /// Adds them one by one, so that only their sums are in memory.
            pub(in crate::history::store) async fn minutes(
                pool: &Pool<$Database>,
                asked: &Stats,
                points: &mut Points,
            ) -> Result<(), store::Error> {
                let select = "SELECT time_ms, session, camera, model, counts FROM saccade_minutes WHERE time_ms >= ";
                let mut query = QueryBuilder::<$Database>::new(select);
                query.push_bind(asked.from_ms).push(" AND time_ms < ").push_bind(asked.to_ms);
                for (column, value) in [("session", &asked.session), ("camera", &asked.camera)] {
                    if let Some(value) = value {
                        query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
                    }
                }
                if let Some(model) = &asked.model {
                    if model.contains('@') {
                        query.push(" AND model = ").push_bind(model.clone());
                    } else {
                        // What begins with the name and an '@', of which 'A' is the next letter.
                        query.push(" AND model >= ").push_bind(format!("{model}@"));
                        query.push(" AND model < ").push_bind(format!("{model}A"));
                    }
                }
                let mut rows = query.build().fetch(pool);
                while let Some(row) = rows.try_next().await? {
                    let counts: String = row.try_get("counts")?;
                    let counts: Counts = serde_json::from_str(&counts).unwrap_or_default();
                    points.add(Minute {
                        id: String::new(),
                        time_ms: row.try_get("time_ms")?,
                        session: row.try_get("session")?,
                        camera: row.try_get("camera")?,
                        model: row.try_get("model")?,
                        counts,
                    })?;
                }
                Ok(())
            }
        }
    };
}

queries!(sqlite, sqlx::Sqlite);
queries!(postgres, sqlx::Postgres);

/// A count as databases have it.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
