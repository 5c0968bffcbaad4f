//! Reads what `nvidia-smi` prints. Pure.

/// What to ask it.
pub const QUERY: [&str; 2] =
    ["--query-gpu=name,memory.total,memory.free,driver_version,utilization.gpu", "--format=csv,noheader,nounits"];
/// GPUs listed at most.
const GPUS_MAX: usize = 64;

/// One GPU.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct NvidiaGpu {
    pub name: String,
    pub memory_bytes: u64,
    pub memory_free_bytes: u64,
    pub driver: String,
    /// Percent; absent where the card does not say.
    pub utilisation: Option<u8>,
}

/// One line per GPU; a line that is none is left out.
pub fn read_query(text: &str) -> Vec<NvidiaGpu> {
    text.lines().filter_map(read_line).take(GPUS_MAX).collect()
}

fn read_line(line: &str) -> Option<NvidiaGpu> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [name, total, free, driver, utilisation] = fields[..] else { return None };
    let mebibytes = |text: &str| text.parse::<u64>().ok().map(|mebibytes| mebibytes << 20);
    Some(NvidiaGpu {
        name: name.to_owned(),
        memory_bytes: mebibytes(total)?,
        memory_free_bytes: mebibytes(free).unwrap_or(0),
        driver: driver.to_owned(),
        utilisation: utilisation.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_read_from_captured_text() {
        let gpus = read_query(include_str!("../../testdata/nvidia/query.csv"));
        assert_eq!(gpus.len(), 2);
        assert_eq!((gpus[0].name.as_str(), gpus[0].memory_bytes >> 20, gpus[0].utilisation), ("NVIDIA H200", 143771, Some(0)));
        assert_eq!((gpus[1].memory_free_bytes, gpus[1].utilisation), (0, None));
    }

    #[test]
    fn what_is_no_gpu_is_left_out() {
        assert_eq!(read_query("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n\n,,,,\n"), []);
    }
}
