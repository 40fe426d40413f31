"""Every fixed bound of the server: its unit in its name, its reason, what others chose, who enforces it.

Owns:    numbers that an administrator does not set. What is set is an option in config.
Never:   reads the environment, imports anything of ours.
Used by: all.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
NS_PER_S: Final = 1_000_000_000

# -- what a client may send (enforced by http.reader) ------------------------------------

# The defaults of the options limits.head_bytes, limits.target_bytes and limits.head_fields.
# Request line and fields together. 431 beyond it. Elsewhere: h11 16 KiB, nginx 4 buffers of 8 KiB, gunicorn
# 100 fields of 8 KiB. Browsers stay below 8 KiB unless cookies run wild.
HEAD_MAX_BYTES: Final = 32 * KIB

# The request target alone. 414 beyond it. RFC 9112 3 recommends to take at least 8000 octets of request line.
TARGET_MAX_BYTES: Final = 8 * KIB

# Field lines in a head. 431 beyond it. Elsewhere: Apache 100, gunicorn 100, nginx 1000.
FIELDS_MAX: Final = 100

# Byte ranges in one Range; with more of them it is ignored, and the whole file is the answer (RFC 9110 14.2). Each may
# become a part with a head of its own, and of a large file two system calls. Who wants more asks again. Enforced by
# http.ranges. Elsewhere: Apache 200, lighttpd 10, nginx as many as fit into a head.
RANGES_MAX: Final = 64

# One Accept or Accept-Encoding; a longer one is taken as absent: no client may rely on its wishes being granted (RFC
# 9110 12.1). To read 31 KiB takes 3 to 6 ms, often twice for one request, in which all other clients wait; 1 KiB takes
# 0.2 ms. Browsers send about 150 bytes and 25. Enforced by http.accept, http.negotiation.
WISH_MAX_BYTES: Final = 1 * KIB

# Request content that we read and throw away to keep the connection. Beyond it: 413, or a close after the
# answer. A file server has no use for content; this is only politeness towards clients who send some.
BODY_DISCARD_MAX_BYTES: Final = 64 * KIB

# One chunk-size line with its extensions, and the trailer section as a whole. 400 beyond it.
CHUNK_LINE_MAX_BYTES: Final = 256
TRAILER_MAX_BYTES: Final = 8 * KIB

# Chunk extensions of one request together (RFC 9112 7.1.1 asks for such a limit). 413 beyond it. Without it, content of
# 64 KiB in chunks of one byte could drag 16 MiB of extensions along. Go's net/http limits the same excess.
CHUNK_EXTENSIONS_MAX_BYTES: Final = 4 * KIB

# -- one connection (enforced by worker.connection, worker.holding) -------------------------

# What one recv asks for. One head in one call is the common case; more only grows the copy.
RECV_BYTES: Final = 16 * KIB

# After an answer that ends a connection: how long we go on reading so that the peer gets the answer instead of
# a reset (RFC 9112 9.6), and how much. nginx: 5 s between reads, 30 s in all.
LINGER_S: Final = 2.0
LINGER_MAX_BYTES: Final = 256 * KIB

# One sendfile call. Large enough to amortise the call, small enough that one fast client does not keep the
# leader from the others (1 MiB is about 0.3 ms on loopback).
SENDFILE_BYTES: Final = 1 * MIB

# Slow requests (the option log.slow) that a worker tells of in a second; of more of them it tells how many. When a disk
# hangs, all are slow.
SLOW_TOLD_PER_S: Final = 10

# -- proxies in front of us (enforced by http.proxy, http.forwarded, worker.proxies, worker.entrance) ---

# One PROXY header; beyond it the connection is closed. With addresses it has 16 to 232 bytes, and what proxies append
# (a name of TLS, a certificate's subject) takes some hundreds. nginx: 4 KiB.
PROXY_HEADER_MAX_BYTES: Final = 4 * KIB

# Forwarded or X-Forwarded-For: so much of its right end is looked at, twenty hops of those there are at least. All that
# a client may have written stands to the left of what counts.
FORWARDED_MAX_BYTES: Final = 1 * KIB

# Values of these fields that a worker remembers the client of. Of busy clients each sends the same one again and again.
FORWARDED_KEPT_MAX: Final = 4_096

# X-Request-ID of a trusted proxy; a longer one is replaced. A UUID has 36 bytes, HAProxy's default some 60.
REQUEST_ID_MAX_BYTES: Final = 128

# A PROXY header that is missing or wrong is told in the log, and then not again for so long, but counted.
PROXY_TOLD_S: Final = 60.0

# -- limits per client (enforced by worker.admission) ---------------------------------------

# A client that is refused is told of in the log, and then not again for so long; so many clients in each worker. What
# else was refused meanwhile is told as one number: a flood is not to become one of the log.
CLIENTS_TOLD_S: Final = 60.0
CLIENTS_TOLD_MAX: Final = 16

# -- the queue (enforced by master.acceptor, ipc.channel) ----------------------------------

# Descriptors in one message. SCM_RIGHTS allows 253; 16 is where the gain of a batch levels off.
BATCH_MAX: Final = 16

# How many clients were refused for it is told in the log, and then not again for so long.
SHED_TOLD_S: Final = 10.0

# Rest after the kernel said EMFILE or ENFILE at accept: long enough not to spin, short enough not to be seen.
ACCEPT_PAUSE_S: Final = 0.1

# Such rests are told in the log, and then not again for so long.
PAUSE_TOLD_EVERY_S: Final = 10.0

# Descriptors that a worker keeps free for files, logs and its own needs; connections get the rest.
WORKER_RESERVED_DESCRIPTORS: Final = 96

# Descriptors for which a worker has the kernel make room before it has threads (worker.alone): 128 KiB. Beyond it room
# is made when it is needed.
DESCRIPTORS_PREPARED_MAX: Final = 16_384

# -- processes (enforced by master, ipc) ----------------------------------------------------

# A worker that was told SIGABRT gets so long to write its stacks before SIGKILL.
ABORT_GRACE_S: Final = 1.0

# What a worker was at when it hung or died, in the log: so many of its threads and so many of its requests, those that
# took the longest; of what is more there is the number.
WORK_TOLD_MAX: Final = 12

# A worker that lives longer than this proves that its generation works; the throttle forgets.
PROVEN_AFTER_S: Final = 2.0

# SIGINT, a person's Ctrl-C, waits for nobody but the workers, which close idle connections and write their logs.
INTERRUPT_GRACE_S: Final = 0.5

# At the drain's deadline a worker cuts what is left, and writes that down; after so much more the master kills it.
CUT_GRACE_S: Final = 0.5

# Wished size of a channel's buffer: a full queue of single connections, at about 1 KiB of kernel memory each.
# The kernel gives at most twice net.core.wmem_max.
CHANNEL_BUFFER_BYTES: Final = 1 * MIB

# One try for a process-shared mutex. A holder keeps it for microseconds; who waits longer than this shows the
# master that it waits and does not hold.
MUTEX_TURN_S: Final = 0.02

# A worker that cannot have a mutex for so long goes on without, and tries again after the same time: whoever stopped
# inside is ended by the watch over heartbeats (the option hung_after, 1 s or more), and is not to take those who wait
# with it. The master gives up sooner: it has others to look after, and it is who ends the one that hangs.
MUTEX_PATIENCE_S: Final = 0.5
MUTEX_PATIENCE_MASTER_S: Final = 0.2

# One attempt of the master to get a mutex back from the dead, and its rest after one in vain. Meanwhile it does nothing
# else: clients wait. Long enough for a look, two turns of those that wait, and the judgement (ipc.semaphores).
MUTEX_RECOVERY_S: Final = 0.1
MEND_AGAIN_S: Final = 0.5

# The stand-in that accepts while the master executes itself answers within microseconds when it is relieved. Whoever
# does not has stopped (SIGSTOP); clients wait meanwhile. Enforced by master.standin.
STAND_IN_WITHIN_S: Final = 1.0

# What takes its time to come or to be taken is shown to others after so long, at the end of a round: most have gone by
# then, and a row costs two microseconds. What needs a thread is shown at once. Enforced by worker.showing.
SHOWN_AFTER_S: Final = 0.02

# Rows of a worker that tell what its threads do and what requests wait for (ipc.activity), 16 and 256 bytes each. What
# has no row is counted only. More of them would be memory that is hardly ever looked at, in every slot below.
THREAD_ROWS: Final = 128
REQUEST_ROWS: Final = 64

# Rows of the segment, 22 KiB each: for the workers that serve (64 at most), for as many that are to follow them at a
# reload, and for those of earlier reloads that have not finished yet.
SLOTS_MAX: Final = 192

# A reload is decided by so much of the option start_within after it was asked for (9 s of 10): whoever allows that time
# shall hear the outcome within it.
RELOAD_SHARE: Final = 0.9

# Workers that a reload has replaced may finish what they have: answers end by themselves, or by the option send_stall.
# This is a bound only for what the connections' own deadlines might not see.
REPLACED_DRAIN_S: Final = 24 * 3600.0

# Of what a rehearsal says, the last lines stand for the reason. A memory file holds it, so it needs a bound.
REHEARSAL_SAID_MAX_BYTES: Final = 64 * KIB

# Idle connections that are left with systemd over a restart, the newest; each costs PID 1 about 70 us, twice. The unit
# allows that many and some (FileDescriptorStoreMax=).
STORED_MAX: Final = 1024

# ... so many in one message (SCM_RIGHTS allows 253), and so long is waited for systemd to take all of them.
STORED_BATCH_MAX: Final = 64
STORE_WITHIN_S: Final = 2.0

# Orders that are open on the control socket at a time; each is a person or a program that waits for a reload.
CONTROL_MAX: Final = 16

# -- the configuration (enforced by config) -------------------------------------------------

# One file of it. Nobody writes more by hand; who names /dev/zero or a disk image gets an error and no memory is lost.
CONFIG_MAX_BYTES: Final = 256 * KIB

# -- systemd, listeners, life (enforced by sd, master) ----------------------------------------

# What a stop takes beyond server.drain: systemd is asked for so much more (EXTEND_TIMEOUT_USEC=).
STOP_MARGIN_S: Final = 5.0

# STATUS= of one notification. PID 1 ignores a message beyond 4096 bytes whole; a status is one line on a screen.
STATUS_MAX_CHARACTERS: Final = 512

# One value of a log record, a traceback included. journald takes up to 767 MiB by memfd; nobody reads that.
LOG_VALUE_MAX_BYTES: Final = 256 * KIB

# Listeners of one service: a message names one by a byte. Enforced by master.listeners.
LISTENERS_MAX: Final = 255

# listen(2) of the listeners we bind ourselves; the kernel caps it at net.core.somaxconn (4096 since Linux 5.4).
BACKLOG: Final = 4096

# While clients come faster than they can be served, the master looks so often how many wait, or four times within the
# option queue_wait. Enforced by master.backlogs.
BACKLOG_LOOK_S: Final = 0.25
BACKLOG_LOOK_MIN_S: Final = 0.05

# Where the option queue_wait is longer, this is what counts for how many may wait: few clients would stay for longer,
# and those who find no room have lost nothing but time.
BACKLOG_WAIT_S: Final = 4.0

# So many may always wait, in our queue and in the kernel: it takes some to keep workers busy while the master sleeps.
BACKLOG_MIN: Final = 16

# Batches that the acceptor takes from one listener before it looks at everything else again.
ACCEPT_ROUNDS: Final = 16

# The master's own period: heartbeats are judged, the status line is told at most this often.
TICK_S: Final = 1.0

# Start-ups that fail, before any worker was ever ready, until the master says that the service cannot start.
START_TRIES: Final = 3

# First rest of the throttle; it doubles with every early death up to the option respawn_delay_max.
RESPAWN_DELAY_S: Final = 0.05

# -- files (enforced by handlers.static, handlers.cache) ---------------------------------------

# Up to here a file's content is kept in memory and goes out with its head in one send. Beyond it sendfile is cheaper
# than the copy, and a few such files would push out all others.
FILE_IN_MEMORY_MAX_BYTES: Final = 256 * KIB

# Larger files are kept open between requests, so many at a time, each with its coded variants.
FILES_KEPT_OPEN_MAX: Final = 32

# Text from here on is compressed while it is served; what is smaller fits into a packet with its head. nginx: 20 bytes,
# Apache any, lighttpd 256, Caddy 512. Enforced by handlers.entries.
CODED_MIN_BYTES: Final = 1 * KIB

# Contents that wait to be compressed, one after the other; beyond it they have to be asked for again. Enforced by
# handlers.variants.
CODINGS_WAITING_MAX: Final = 256

# ... and so long after their last use, because the room of a deleted file is not free before. nginx: 60 s.
FILES_KEPT_OPEN_S: Final = 10

# Heads that a worker remembers (handlers.memo), and as many sections of fields (handlers.sections): a busy site's
# browsers and pages of one second. The option memo_bytes bounds them too.
MEMO_ENTRIES_MAX: Final = 8_192

# A part of a file up to here is read and goes out with its head in one send; to set up sendfile costs more than to
# copy this. Enforced by handlers.static.
PART_IN_MEMORY_MAX_BYTES: Final = 64 * KIB

# That a part of a file is in memory holds for so long without asking again. The kernel keeps what was just used.
RESIDENT_S: Final = 0.25

# The path of a root is looked at in every second; while it leads nowhere, also after such rests: a switch that is not
# atomic leaves it missing for milliseconds. Enforced by worker.connection.
ROOT_MISSED_REST_S: Final = 0.05

# Folders that are held open while links are followed one by one (files.owned): a path with a link in it may be so deep.
# Few threads walk at once, and for microseconds; where many do and no descriptor is left, it is 503.
LINKED_FOLDERS_MAX: Final = 24

# Names of a folder that are read to list it, about 300 bytes of memory each while that lasts; beyond it the listing
# says that there are more.
LISTING_NAMES_MAX: Final = 100_000

# ... and rows of the page: more than anybody reads, and no more than a browser shows without effort. Caddy: 10,000.
LISTING_ROWS_MAX: Final = 10_000

# ... and bytes of it: ten thousand names of usual length make 2 MB, of full length up to 27. It is held until the last
# of its readers has it, however slow.
LISTING_MAX_BYTES: Final = 4 * MIB

# All listings that are under way to clients in a worker; beyond it 503. One that many read counts once, so to get there
# takes many folders, orders or changes. Smaller ones are not shared: they go out with their head, in one send.
LISTINGS_MAX_BYTES: Final = 32 * MIB
LISTING_SHARED_MIN_BYTES: Final = 16 * KIB

# Listings that are made at a time in a worker; each takes a thread, and with 100,000 names 28 to 52 MB while that lasts
# (tracemalloc). Who asks for one that others wait for gets the same. Enforced by handlers.listings.
LISTINGS_AT_ONCE_MAX: Final = 2

# After so many names or rows a thread that makes a listing rests for so long, in which the leader can have the
# interpreter. Without that each of the leader's steps might wait for the interpreter's switch interval of 5 ms, or for
# the end of a sort: beside listings of 100,000 names other requests then took up to 265 ms, now 11 ms.
LISTING_STEP_ROWS: Final = 128
LISTING_REST_S: Final = 0.00005

# Objects that a worker makes more than it lets go of before the collector looks for cycles among them. A request makes
# none, but with Python's 700 those that are remembered for a second brought it in so often that it took a tenth of the
# time where every head is new. Set by worker.main.
COLLECT_EVERY_OBJECTS: Final = 20_000

# -- the worker's rounds (enforced by worker.pool, worker.parking, worker.holding, worker.accesslog) ---

# The longest wait of one poll: so often at least a worker beats, and looks at its deadlines.
ROUND_S: Final = 0.25

# Clients that one poll reports: those behind them wait for so many answers at most, and so does who is new.
EVENTS_MAX: Final = 256

# A worker that finds no memory for its next round gives back some and rests: what it was told of comes again.
RELIEF_S: Final = 0.01

# Under load: so often it stores its numbers for others to read, and looks at what is not the next round's. Every round
# this would be 3 us, of which a round of three clients felt one in each answer.
TEND_EVERY_S: Final = 0.001

# Width of a bucket of deadlines: how late a deadline may be noticed. Parts of a second.
PARKING_TICKS_PER_S: Final = 4

# A connection that has never sent a byte gets so long, once its worker drains, to send the request that may be
# under way; idle ones that had their answers are closed at once.
DRAIN_GRACE_S: Final = 0.2

# What the kernel takes of an answer beyond what the client has room for (TCP_NOTSENT_LOWAT, tcp(7)); it wakes us when
# half of it is left. Without it the kernel fills a send buffer of megabytes for each slow reader: when two thousand ask
# for a large file at once, that takes a core half a minute, and TCP all of its memory. An answer from memory still fits
# in whole. Enforced by master.listeners, inherited by connections.
UNSENT_MAX_BYTES: Final = 256 * KIB

# What a slow reader must take within the option send_stall. nginx's send_timeout starts anew with each write.
STALL_BYTES: Final = 64 * KIB

# Lines of the access log that wait in memory: written when there are so many bytes, or after so long; beyond the
# second bound, when the disk does not take them, new lines are dropped and counted.
LOG_BATCH_BYTES: Final = 64 * KIB
LOG_BATCH_S: Final = 0.25
LOG_WAITING_MAX_BYTES: Final = 4 * MIB

# -- `pyserver check` (enforced by files.survey) -------------------------------------------------

# Files that it looks at, some seconds' worth; the rest is not told about, and the last line says so.
SURVEY_FILES_MAX: Final = 500_000

# Findings of one kind that are printed. Who sees ten backups knows what the other three hundred are.
SURVEY_SHOWN_MAX: Final = 10
