//! Saccade: a real-time WebRTC vision server.
