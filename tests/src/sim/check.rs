//! The checkers (`SAFETY.md` §3.2): each looks at the facts of a run alone, and knows nothing of how they came about.
//!
//! | module | what it checks |
//! |---|---|
//! | [`single`] | 1: never two work at once (I3); and I5: nobody works on under a turn that it gave up |
//! | [`fence`] | 2: commit order at the database (I6, I7), and one token for one process |
//! | [`ticks`] | 3: each tick is charged once, without a hole |
//! | [`register`] | 4: the holder key is one register with compare-and-set |
//! | [`dark`] | 5: how long nobody works, against the bound of `SAFETY.md` §1.9 (I10) |
//! | [`turns`] | the store's own story: I1, I2, I4, I8 |
//! | [`deadline`] | no deadline outlives the etcd lease that it hangs on (§1.8), and none moves back (I15) |
//! | [`blocker`] | 9: whoever should act and does not says why |
//! | [`leaks`] | 10: nothing is left over |

pub mod blocker;
pub mod dark;
pub mod deadline;
pub mod fence;
pub mod leaks;
pub mod register;
pub mod single;
pub mod ticks;
pub mod turns;

use super::fact::Fact;

/// One checker.
pub trait Check {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Takes in the next fact, of true time `at` in microseconds.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    fn see(&mut self, at: u64, fact: &Fact) -> Result<(), String>;

    /// The run is over.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    fn end(&mut self, _at: u64) -> Result<(), String> {
        Ok(())
    }
}

/// What a run is allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// A pause that no clock shows, or a service that lies: then the database alone keeps two apart, and checkers of time
    /// do not apply.
    pub two_at_once: bool,
    /// A single fault, so that its bound of darkness holds: this long, in microseconds.
    pub dark_us: Option<u64>,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// True time in microseconds.
    pub at: u64,
    /// The checker.
    pub check: &'static str,
    /// What is wrong.
    pub what: String,
}

/// All checkers of a run.
pub struct Checks {
    all: Vec<Box<dyn Check>>,
}

impl Checks {
    /// Those that apply.
    pub fn new(allowed: Allowed) -> Self {
        let mut all: Vec<Box<dyn Check>> = vec![
            Box::<fence::Fence>::default(),
            Box::<ticks::Ticks>::default(),
            Box::<register::Register>::default(),
            Box::<turns::Turns>::default(),
            Box::<deadline::Deadline>::default(),
            Box::new(dark::Dark::new(allowed.dark_us)),
            Box::<blocker::Blocked>::default(),
            Box::<leaks::Leaks>::default(),
        ];
        if !allowed.two_at_once {
            all.push(Box::<single::Single>::default());
        }
        Self { all }
    }

    /// Shows a fact to all of them.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn see(&mut self, at: u64, fact: &Fact) -> Result<(), Violation> {
        self.all.iter_mut().try_for_each(|check| {
            let name = check.name();
            check.see(at, fact).map_err(|what| Violation { at, check: name, what })
        })
    }

    /// Asks all of them for their last word.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn end(&mut self, at: u64) -> Result<(), Violation> {
        self.all.iter_mut().try_for_each(|check| {
            let name = check.name();
            check.end(at).map_err(|what| Violation { at, check: name, what })
        })
    }
}
