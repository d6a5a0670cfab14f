//! The kinds of errors that an engine returns, on which plans and hints depend.

/// The kind of error that the engine returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The object does not exist.
    NotFound,
    /// The object already exists or is in use.
    Conflict,
    /// The object is already being removed.
    BeingRemoved,
    /// The container is not paused.
    NotPaused,
    /// Another process writes the same file at the same time.
    Overwritten,
    /// The container is about to exit and cannot be inspected until then.
    Ending,
    /// The image does not contain the program.
    NoSuchProgram,
    /// The published port is in use.
    PortTaken,
    /// The engine's host does not have the published address.
    NoSuchAddress,
    /// The engine can no longer be reached.
    Gone,
    /// The answer exceeds the size of any valid answer.
    TooLarge,
    /// The disk is full.
    Disk,
    /// Something other than a regular file is in the place of a file in the container.
    UnexpectedFile,
    /// All address ranges that the engine may assign to networks are in use.
    AddressPools,
    /// The engine's firewall chains were removed.
    Firewall,
    /// The engine may not publish such a low port.
    PrivilegedPort,
    /// The engine's host has no usable control groups.
    Cgroups,
    /// The image is built for another architecture.
    Architecture,
    /// The image's command or user is unusable.
    Unrunnable,
    /// A proxy in front of the engine, or an authorization plugin, does not allow the request.
    Denied,
    /// Anything else.
    Other,
}
