//! The byte stream of a connection, of a Unix or a TCP socket.

use tokio::io::{AsyncRead, AsyncWrite};

/// The byte stream of a connection.
pub(super) trait ByteStream: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> ByteStream for T {}
