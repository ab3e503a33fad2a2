//! How much of the distance between a model that knows no teacher and the teacher the student has gone.

use serde::{Deserialize, Serialize};

use super::Column;
use super::interval::{Interval, interval, mean};

/// The gap in one measure, and how much of it the student closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// `tasks` or `held_out_loss`.
    pub measure: String,
    /// The model that the gap is counted from: `labels`, else `scratch`, else `base`.
    pub from: String,
    /// What that model has.
    pub without: f64,
    /// What the teacher has.
    pub teacher: f64,
    /// What the student has.
    pub student: f64,
    /// (student - without) / (teacher - without): 1 is a student as good as its teacher.
    pub closed: f64,
    /// By the paired bootstrap over documents or tasks.
    pub interval: Option<Interval>,
    /// Seconds of processors that the student's own stages took for each hundredth of the gap; `None` where none is closed.
    pub cpu_seconds_a_point: Option<f64>,
    /// Dollars for the teacher's answers for each hundredth of the gap.
    pub dollars_a_point: Option<f64>,
}

/// The models that a gap may be counted from, the first of them that is there.
const FROM: [&str; 3] = ["labels", "scratch", "base"];

/// The gaps between `columns`, where the teacher is better than the other beyond chance: the interval of the difference has no
/// zero in it. `cpu_seconds` and `dollars` are what the student took.
pub(crate) fn gaps(columns: &[Column], seed: u64, cpu_seconds: Option<f64>, dollars: Option<f64>) -> Vec<Gap> {
    let column = |name: &str| columns.iter().find(|column| column.model == name);
    let from = FROM.into_iter().find_map(|name| column(name));
    let (Some(from), Some(teacher), Some(student)) = (from, column("teacher"), column("student")) else {
        return Vec::new();
    };
    let measure = |name: &str| {
        let [without, theirs, ours] = [from, teacher, student].map(|column| match name {
            "tasks" => &column.units.tasks,
            _ => &column.units.held_out,
        });
        let units = without.len();
        if theirs.len() != units || ours.len() != units {
            return None;
        }
        let gap = |times: &[u32]| Some(mean(theirs, times)? - mean(without, times)?);
        let apart = interval(seed, name, units, gap)?;
        // More right answers are better, and less loss.
        if if name == "tasks" { apart.low <= 0.0 } else { apart.high >= 0.0 } {
            return None;
        }
        let closed = |times: &[u32]| Some((mean(ours, times)? - mean(without, times)?) / gap(times)?);
        let once = vec![1; units];
        let share = closed(&once)?;
        let a_point = |all: Option<f64>| all.filter(|_| share > 0.0).map(|all| all / (100.0 * share));
        Some(Gap {
            measure: name.to_owned(),
            from: from.model.clone(),
            without: mean(without, &once)?,
            teacher: mean(theirs, &once)?,
            student: mean(ours, &once)?,
            closed: share,
            interval: interval(seed, name, units, closed),
            cpu_seconds_a_point: a_point(cpu_seconds),
            dollars_a_point: a_point(dollars),
        })
    };
    ["tasks", "held_out_loss"].into_iter().filter_map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::super::interval::Unit;
    use super::*;

    /// A model that answers the first `right` of a hundred tasks.
    fn column(model: &str, right: usize) -> Column {
        let tasks = (0..100).map(|task| Unit { sum: f64::from(u8::from(task < right)), places: 1.0 }).collect();
        let mut column = Column { model: model.to_owned(), ..Column::default() };
        column.units.tasks = tasks;
        column
    }

    #[test]
    fn a_gap_is_told_where_there_is_one() {
        let columns = [column("teacher", 90), column("base", 0), column("labels", 50), column("student", 80)];
        let found = gaps(&columns, 1, Some(150.0), Some(3.0));
        let [gap] = &found[..] else { panic!("{found:?}") };
        assert_eq!((gap.measure.as_str(), gap.from.as_str()), ("tasks", "labels"));
        assert!((gap.closed - 0.75).abs() < 1e-12);
        let interval = gap.interval.unwrap();
        assert!(interval.low < 0.7 && interval.high > 0.8 && interval.high < 1.0, "{interval:?}");
        assert!((gap.cpu_seconds_a_point.unwrap() - 2.0).abs() < 1e-9, "{gap:?}");
        assert!((gap.dollars_a_point.unwrap() - 0.04).abs() < 1e-9, "{gap:?}");
        let worse = gaps(&[column("teacher", 90), column("labels", 50), column("student", 40)], 1, Some(1.0), None);
        assert!(worse[0].closed < 0.0 && worse[0].cpu_seconds_a_point.is_none(), "{worse:?}");
        // By two tasks in a hundred no teacher is better beyond chance.
        assert!(gaps(&[column("teacher", 51), column("labels", 50), column("student", 50)], 1, None, None).is_empty());
    }
}
