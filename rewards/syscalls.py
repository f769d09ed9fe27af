"""Numbers of Linux system calls for x86_64 and aarch64, and which calls each profile of `rewards.confine` may make.

Numbers are the kernel's (arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h); they never
change once given. Only the calls that a list below names are here; a "-" says that the architecture has no such call.
"""

from __future__ import annotations

LAST = 450
"""set_mempolicy_home_node (Linux 5.17), the last number that these lists were written for. From 424 on both
architectures share their numbers. What is newer does not exist for a confined process (ENOSYS)."""

_TABLE = """
read:0:63 write:1:64 open:2:- close:3:57 stat:4:- fstat:5:80 lstat:6:- poll:7:- lseek:8:62 mmap:9:222
mprotect:10:226 munmap:11:215 brk:12:214 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
ioctl:16:29 pread64:17:67 pwrite64:18:68 readv:19:65 writev:20:66 access:21:- pipe:22:- select:23:-
sched_yield:24:124 mremap:25:216 msync:26:227 mincore:27:232 madvise:28:233 shmget:29:194 shmat:30:196
shmctl:31:195 dup:32:23 dup2:33:- pause:34:- nanosleep:35:101 getitimer:36:102 alarm:37:- setitimer:38:103
getpid:39:172 socket:41:198 connect:42:203 accept:43:202 sendto:44:206 recvfrom:45:207 sendmsg:46:211
bind:49:200 listen:50:201 socketpair:53:199 clone:56:220 fork:57:- vfork:58:- execve:59:221 exit:60:93
kill:62:129 uname:63:160 semget:64:190 semop:65:193 semctl:66:191 shmdt:67:197 msgget:68:186 msgsnd:69:189
msgrcv:70:188 msgctl:71:187 fcntl:72:25 flock:73:32 fsync:74:82 fdatasync:75:83 truncate:76:45 ftruncate:77:46
getdents:78:- getcwd:79:17 chdir:80:49 fchdir:81:50 rename:82:- mkdir:83:- rmdir:84:- unlink:87:- readlink:89:-
chmod:90:- fchmod:91:52 chown:92:- fchown:93:55 lchown:94:- umask:95:166 gettimeofday:96:169 getrlimit:97:163
getrusage:98:165 sysinfo:99:179 times:100:153 ptrace:101:117 getuid:102:174 syslog:103:116 getgid:104:176
setuid:105:146 setgid:106:144 geteuid:107:175 getegid:108:177 setpgid:109:154 getppid:110:173 getpgrp:111:-
setsid:112:157 setreuid:113:145 setregid:114:143 getgroups:115:158 setgroups:116:159 setresuid:117:147
getresuid:118:148 setresgid:119:149 getresgid:120:150 getpgid:121:155 setfsuid:122:151 setfsgid:123:152
getsid:124:156 capget:125:90 capset:126:91 rt_sigpending:127:136 rt_sigtimedwait:128:137 rt_sigqueueinfo:129:138
rt_sigsuspend:130:133 sigaltstack:131:132 utime:132:- mknod:133:- uselib:134:- personality:135:92 ustat:136:-
statfs:137:43 fstatfs:138:44 sysfs:139:- getpriority:140:141 setpriority:141:140 sched_setparam:142:118
sched_getparam:143:121 sched_setscheduler:144:119 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 vhangup:153:58 modify_ldt:154:- pivot_root:155:41 prctl:157:167 arch_prctl:158:-
adjtimex:159:171 setrlimit:160:164 chroot:161:51 acct:163:89 settimeofday:164:170 mount:165:40 umount2:166:39
swapon:167:224 swapoff:168:225 reboot:169:142 sethostname:170:161 setdomainname:171:162 iopl:172:- ioperm:173:-
init_module:175:105 delete_module:176:106 quotactl:179:60 nfsservctl:180:42 gettid:186:178 setxattr:188:5
lsetxattr:189:6 fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16 tkill:200:130
time:201:- futex:202:98 sched_getaffinity:204:123 io_setup:206:0 io_destroy:207:1 io_getevents:208:4
io_submit:209:2 io_cancel:210:3 lookup_dcookie:212:18 getdents64:217:61 set_tid_address:218:96
restart_syscall:219:128 semtimedop:220:192 clock_settime:227:112 clock_gettime:228:113 clock_getres:229:114
clock_nanosleep:230:115 exit_group:231:94 epoll_wait:232:- epoll_ctl:233:21 tgkill:234:131 utimes:235:-
get_mempolicy:239:236 mq_open:240:180 mq_unlink:241:181 mq_timedsend:242:182 mq_timedreceive:243:183
mq_notify:244:184 mq_getsetattr:245:185 kexec_load:246:104 add_key:248:217 request_key:249:218 keyctl:250:219
ioprio_set:251:30 migrate_pages:256:238 openat:257:56 mkdirat:258:34 mknodat:259:33 fchownat:260:54
futimesat:261:- newfstatat:262:79 unlinkat:263:35 renameat:264:38 readlinkat:267:78 fchmodat:268:53
faccessat:269:48 pselect6:270:72 ppoll:271:73 unshare:272:97 set_robust_list:273:99 get_robust_list:274:100
move_pages:279:239 utimensat:280:88 epoll_pwait:281:22 fallocate:285:47 accept4:288:242 eventfd2:290:19
epoll_create1:291:20 dup3:292:24 pipe2:293:59 rt_tgsigqueueinfo:297:240 perf_event_open:298:241
fanotify_init:300:262 fanotify_mark:301:263 prlimit64:302:261 name_to_handle_at:303:- open_by_handle_at:304:-
clock_adjtime:305:266 sendmmsg:307:269 setns:308:268 getcpu:309:168 process_vm_readv:310:270
process_vm_writev:311:271 kcmp:312:272 finit_module:313:273 sched_setattr:314:274 renameat2:316:276
getrandom:318:278 kexec_file_load:320:294 bpf:321:280 execveat:322:281 userfaultfd:323:282 membarrier:324:283
statx:332:291 rseq:334:293 pidfd_send_signal:424:424 io_uring_setup:425:425 io_uring_enter:426:426
io_uring_register:427:427 open_tree:428:428 move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432
fspick:433:433 pidfd_open:434:434 clone3:435:435 close_range:436:436 pidfd_getfd:438:438 faccessat2:439:439
process_madvise:440:440 mount_setattr:442:442 quotactl_fd:443:443 memfd_secret:447:447 process_mrelease:448:448
"""
"""name:x86_64:aarch64"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED = _words(
    """
    read write readv writev pread64 pwrite64 lseek open openat close close_range fcntl ioctl dup dup2 dup3 pipe
    pipe2
    stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd chdir
    fchdir getdents getdents64
    mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 ftruncate fallocate fsync fdatasync flock umask
    mmap munmap mprotect mremap madvise msync mincore brk membarrier get_mempolicy
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2
    recvfrom sendto
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm
    setitimer getitimer kill tgkill
    futex set_robust_list get_robust_list rseq set_tid_address clone clone3 exit exit_group restart_syscall
    arch_prctl prctl
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid capget
    getrlimit setrlimit prlimit64 getrusage sysinfo uname getrandom getcpu sched_yield sched_getaffinity
    sched_getparam sched_getscheduler
    sched_get_priority_max sched_get_priority_min getpriority
    """
)
"""All that a reward child may do: memory, files (Landlock says which), its own threads, clocks and signals to itself.
Some of it only with the arguments that `rewards.seccomp` names. Everything else is refused."""

DENIED = _words(
    """
    socket connect bind listen accept accept4 sendmsg sendmmsg socketpair
    fork vfork execve execveat setsid setpgid
    tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd ptrace process_vm_readv
    process_vm_writev process_madvise
    process_mrelease kcmp setpriority ioprio_set sched_setscheduler sched_setparam sched_setattr migrate_pages
    move_pages
    truncate chmod fchmod fchmodat chown fchown lchown fchownat setxattr lsetxattr fsetxattr removexattr
    lremovexattr fremovexattr
    utime utimes futimesat utimensat name_to_handle_at open_by_handle_at mknod mknodat
    shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink
    mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    bpf perf_event_open keyctl add_key request_key userfaultfd io_uring_setup io_uring_enter io_uring_register
    memfd_secret
    io_setup io_submit io_destroy io_getevents io_cancel
    mount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick pivot_root chroot unshare setns
    fanotify_init fanotify_mark quotactl quotactl_fd acct swapon swapoff reboot kexec_load kexec_file_load
    init_module finit_module delete_module syslog settimeofday clock_settime clock_adjtime adjtimex sethostname
    setdomainname
    iopl ioperm modify_ldt personality lookup_dcookie uselib ustat sysfs vhangup nfsservctl
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset
    """
)
"""What a training worker may not do, where drivers of GPUs and renderers make a complete list of the rest hopeless.

In order: sockets; processes; signals and memory of others; what Landlock does not see of files (owners, modes, times,
attributes, truncation by name, handles); memory that outlives the process; kernel interfaces with a history of holes;
mounts and name spaces; the machine's settings; identities.
"""

PROGRAMS = _words("fork vfork execve execveat pidfd_open setpgid")
"""Of `DENIED`, what starting another program takes."""
UNIX_SOCKETS = _words("socket bind listen accept accept4 sendmsg socketpair")
"""Of `DENIED`, what CUDA does at its start: it binds a socket of its own name and waits; it connects to nothing."""


def numbers(machine: str) -> dict[str, int] | None:
    """Name -> number of the calls listed here, for a machine as `platform.machine` names it; None if unknown."""
    column = {"x86_64": 1, "aarch64": 2}.get(machine)
    if column is None:
        return None
    rows = [row.split(":") for row in _TABLE.split()]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
