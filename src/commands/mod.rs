//! The commands, one file each: their arguments, their work and their result.

pub(crate) mod backup;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod export;
pub(crate) mod inputs;
pub(crate) mod logs;
pub(crate) mod man;
pub mod options;
pub(crate) mod restore;
pub(crate) mod session;
pub(crate) mod status;
pub(crate) mod terminal;
pub(crate) mod up;

use std::rc::Rc;

use self::options::Options;
pub use crate::engine::endpoint::Environment;
use crate::engine::endpoint::{self, Endpoint};
use crate::error::Result;
use crate::model::event::Listener;
use crate::output::{Output, OutputFormat, Printer};

/// What every command works with.
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    pub(crate) environment: &'a Environment,
    /// The engine that options, environment and Docker's own configuration choose, found once; `None` if they are
    /// wrong.
    pub(crate) endpoint: Option<Endpoint>,
    /// Where results and progress go.
    pub(crate) printer: Rc<dyn Printer>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(options: &'a Options, environment: &'a Environment, printer: Rc<dyn Printer>) -> Self {
        Self { options, environment, endpoint: resolve(options, environment).ok(), printer }
    }

    /// The engine.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) if options, environment or Docker's own configuration are wrong.
    fn endpoint(&self) -> Result<Endpoint> {
        self.endpoint.clone().map_or_else(|| resolve(self.options, self.environment), Ok)
    }

    /// Prints the result. A reader that closed standard output has seen enough.
    fn print(&self, output: Output<'_>) {
        let _ = self.printer.print(output);
    }

    /// Receives progress and warnings.
    fn listener(&self) -> Rc<dyn Listener> {
        Rc::<dyn Printer>::clone(&self.printer)
    }

    /// The format of the result.
    fn format(&self) -> OutputFormat {
        terminal::style(self.options, self.environment).format
    }
}

fn resolve(options: &Options, environment: &Environment) -> Result<Endpoint> {
    endpoint::resolve(options.host.as_deref(), options.context.as_deref(), environment)
}
