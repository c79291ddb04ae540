//! What the devices do and how they are, by NVML: looked at once a second, recorded as metrics.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;

/// How often the devices are looked at. NVML's own figures are means of a sixth of a second to a second.
const PERIOD: Duration = Duration::from_secs(1);

/// One look at one device. What it does not tell is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Its number, as the driver counts.
    pub device: u32,
    /// Share of the time in which the engine had something to do, 0..1, by its name: `sm`, `decoder`, `encoder`.
    pub busy: Vec<(&'static str, f64)>,
    /// Bytes in use, and of all.
    pub memory: Option<(u64, u64)>,
    /// Degrees Celsius of the chip.
    pub celsius: Option<u32>,
    /// Watts drawn.
    pub watts: Option<f64>,
}

/// Whoever can look at devices.
pub trait Gauges: Send {
    /// Looks at all of them.
    ///
    /// # Errors
    /// Why nothing can be told, for people.
    fn read(&mut self) -> Result<Vec<Reading>, String>;
}

/// Records what is read once a second, in a thread of its own, until it is dropped. Nothing waits for that thread: a driver
/// that hangs holds up no one else.
#[derive(Debug)]
pub struct Watch {
    /// The thread ends when this is gone.
    _stop: SyncSender<()>,
    fullest: Fullest,
}

/// Bytes in use, and of all, of the device that is fullest; `None` while that is not known.
#[derive(Debug, Clone, Default)]
pub struct Fullest(Arc<Mutex<Option<(u64, u64)>>>);

impl Fullest {
    /// At the last look.
    #[must_use]
    pub fn get(&self) -> Option<(u64, u64)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, readings: &[Reading]) {
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
        let ratio = |(used, all): (u64, u64)| used as f64 / all.max(1) as f64;
        let all = readings.iter().filter_map(|reading| reading.memory).filter(|(_, all)| *all > 0);
        let fullest = all.max_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fullest;
    }
}

impl Watch {
    /// What `open` gives is looked at; without it, there are no metrics, and the log says why.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start<G: Gauges>(open: impl FnOnce() -> Result<G, String> + Send + 'static) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let fullest = Fullest::default();
        let noted = fullest.clone();
        std::thread::Builder::new().name("device-watch".to_owned()).spawn(move || {
            let mut gauges = match open() {
                Ok(gauges) => gauges,
                Err(error) => {
                    tracing::warn!(error, "the devices have no metrics");
                    return;
                }
            };
            loop {
                let readings = gauges.read();
                noted.note(readings.as_deref().unwrap_or_default());
                record(readings);
                match stopped.recv_timeout(PERIOD) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { _stop: stop, fullest })
    }

    /// The memory of the fullest device, which the thread keeps up to date.
    #[must_use]
    pub fn fullest(&self) -> Fullest {
        self.fullest.clone()
    }
}

fn record(readings: Result<Vec<Reading>, String>) {
    let readings = readings.unwrap_or_else(|error| {
        metrics::counter!("saccade_device_watch_failures_total").increment(1);
        tracing::debug!(error, "the devices tell nothing");
        Vec::new()
    });
    for Reading { device, busy, memory, celsius, watts } in readings {
        let device = device.to_string();
        for (engine, share) in busy {
            metrics::gauge!("saccade_device_utilization_ratio", "device" => device.clone(), "engine" => engine)
                .set(share);
        }
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
        if let Some((used, all)) = memory {
            metrics::gauge!("saccade_device_memory_bytes", "device" => device.clone()).set(used as f64);
            metrics::gauge!("saccade_device_memory_total_bytes", "device" => device.clone()).set(all as f64);
        }
        if let Some(celsius) = celsius {
            metrics::gauge!("saccade_device_temperature_celsius", "device" => device.clone()).set(celsius);
        }
        if let Some(watts) = watts {
            metrics::gauge!("saccade_device_power_watts", "device" => device).set(watts);
        }
    }
}

/// `libnvidia-ml.so.1`.
#[derive(Debug)]
pub struct Library(Nvml);

impl Library {
    /// # Errors
    /// Why it cannot be used, for people.
    pub fn open() -> Result<Self, String> {
        let opened = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init();
        opened.map(Self).map_err(|error| format!("libnvidia-ml.so.1: {error}"))
    }

    fn look(&self, index: u32) -> Result<Reading, String> {
        let device = self.0.device_by_index(index).map_err(|error| error.to_string())?;
        // What a chip does not have, such as encoders, is an error of its own.
        let share = |percent: u32| f64::from(percent) / 100.0;
        let engines = [
            ("sm", device.utilization_rates().map(|rates| rates.gpu)),
            ("decoder", device.decoder_utilization().map(|engine| engine.utilization)),
            ("encoder", device.encoder_utilization().map(|engine| engine.utilization)),
        ];
        Ok(Reading {
            device: index,
            busy: engines.into_iter().filter_map(|(name, busy)| Some((name, share(busy.ok()?)))).collect(),
            memory: device.memory_info().ok().map(|memory| (memory.used, memory.total)),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1_000.0),
        })
    }
}

impl Gauges for Library {
    fn read(&mut self) -> Result<Vec<Reading>, String> {
        let count = self.0.device_count().map_err(|error| error.to_string())?;
        (0..count).map(|index| self.look(index)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use std::sync::mpsc::TryRecvError;

    #[test]
    fn what_a_device_tells_is_recorded_and_what_it_does_not_is_left_out() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let busy = vec![("sm", 0.75), ("decoder", 0.5)];
            let first = Reading { busy, memory: Some((3 << 30, 139 << 30)), watts: Some(412.5), ..Reading::default() };
            record(Ok(vec![first, Reading { device: 1, celsius: Some(41), ..Reading::default() }]));
            record(Err("GPU is lost".to_owned()));
            recorder.handle().render()
        });
        for line in [
            "saccade_device_utilization_ratio{device=\"0\",engine=\"sm\"} 0.75",
            "saccade_device_utilization_ratio{device=\"0\",engine=\"decoder\"} 0.5",
            "saccade_device_memory_bytes{device=\"0\"} 3221225472",
            "saccade_device_memory_total_bytes{device=\"0\"} 149250113536",
            "saccade_device_power_watts{device=\"0\"} 412.5",
            "saccade_device_temperature_celsius{device=\"1\"} 41",
            "saccade_device_watch_failures_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("encoder") && !text.contains("celsius{device=\"0\"}"), "{text}");
    }

    #[test]
    fn the_fullest_device_is_known_until_nothing_is() {
        let fullest = Fullest::default();
        let of = |memory| Reading { memory, ..Reading::default() };
        fullest.note(&[of(Some((3, 10))), of(None), of(Some((8, 20))), of(Some((1, 0)))]);
        assert_eq!(fullest.get(), Some((8, 20)));
        fullest.note(&[]);
        assert_eq!(fullest.get(), None);
    }

    #[test]
    fn it_looks_until_it_is_dropped() {
        struct Counted(SyncSender<()>);
        impl Gauges for Counted {
            fn read(&mut self) -> Result<Vec<Reading>, String> {
                let _ = self.0.try_send(());
                Ok(Vec::new())
            }
        }
        let (sender, looks) = sync_channel(1);
        let watch = Watch::start(move || Ok(Counted(sender))).unwrap();
        assert!(looks.recv_timeout(Duration::from_secs(20)).is_ok());
        drop(watch);
        while looks.recv_timeout(Duration::from_secs(20)).is_ok() {}
        assert_eq!(looks.try_recv(), Err(TryRecvError::Disconnected), "its thread is gone");
    }
}
