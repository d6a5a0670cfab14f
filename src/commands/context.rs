//! What every command works with.

use std::cell::RefCell;
use std::rc::Rc;

use super::options::Options;
use super::terminal;
use crate::engine::choice;
use crate::engine::endpoint::Endpoint;
use crate::engine::environment::Environment;
use crate::error::{Error, Result};
use crate::model::event::Listener;
use crate::output::{Output, OutputFormat, Printer};

/// The options and the environment of a run, its engine, and where its result goes.
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    pub(crate) environment: &'a Environment,
    /// The engine that the run used last, which its hints name although it may have stopped since.
    used: RefCell<Option<Endpoint>>,
    /// Where results and progress go.
    pub(crate) printer: Rc<dyn Printer>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(options: &'a Options, environment: &'a Environment, printer: Rc<dyn Printer>) -> Self {
        Self { options, environment, used: RefCell::default(), printer }
    }

    /// Finds the engine that options, environment and Docker's own configuration choose now.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) if they are wrong.
    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        choice::resolve(self.options.host(), self.options.context(), self.environment)
    }

    /// Records the engine of this run.
    pub(crate) fn uses(&self, endpoint: &Endpoint) {
        *self.used.borrow_mut() = Some(endpoint.clone());
    }

    /// The engine that the run has used, otherwise the one that was found for it.
    pub(crate) fn used_endpoint(&self) -> Option<Endpoint> {
        let used = self.used.borrow().clone();
        used.or_else(|| self.endpoint().ok().filter(Endpoint::was_found))
    }

    /// Prints the result.
    ///
    /// # Errors
    /// The same as [`written`].
    pub(crate) fn print(&self, output: Output<'_>) -> Result<()> {
        written(self.printer.print(output))
    }

    /// Receives progress and warnings.
    pub(crate) fn listener(&self) -> Rc<dyn Listener> {
        Rc::<dyn Printer>::clone(&self.printer)
    }

    /// The format of the result.
    pub(crate) fn format(&self) -> OutputFormat {
        terminal::style(self.options, self.environment).format
    }
}

/// The outcome of a write to standard output. A reader that closed it has seen enough.
///
/// # Errors
/// [`Error::Output`] for any other reason, such as a full disk.
pub(crate) fn written(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::inputs;
    use super::*;

    #[test]
    fn an_empty_option_selects_no_engine() {
        let environment = Environment::from([("DOCKER_HOST".to_string(), "unix:///h".to_string())]);
        let resolved = |host: Option<&str>, context: Option<&str>| {
            let options =
                Options { host: host.map(String::from), context: context.map(String::from), ..Options::default() };
            let context = Context::new(&options, &environment, crate::output::choose(terminal::json_style()));
            (context.endpoint().unwrap().host, inputs::engine_options(&options, context.endpoint().ok().as_ref()))
        };
        let by_variable = ("unix:///h".to_string(), " -H unix:///h".to_string());
        assert_eq!(resolved(Some(""), None), by_variable);
        assert_eq!(resolved(None, Some("")), by_variable);
        assert_eq!(resolved(Some("/o"), Some("")), ("unix:///o".to_string(), " -H /o".to_string()));
    }
}
