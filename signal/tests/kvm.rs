//! A guest of our own under KVM, a hundred bytes of machine code, that takes part in the protocol: it is interrupted when
//! it armed and sleeps, and rings by a write when its host armed. Neither makes `KVM_RUN` return.
#![cfg(all(target_arch = "x86_64", not(miri)))]

use std::arch::global_asm;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{ptr, slice, thread};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use shmbus_shm::{Field, Mapped, SharedMemory, Window, Writers};
use shmbus_signal::Priority;
use shmbus_signal::os::kvm::{GuestDoorbell, Interrupt, IoEventAddress, KvmError, Written};
use shmbus_signal::os::{Event, SignalSet};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};

const LOST: Duration = Duration::from_secs(20);
const ROUNDS: u64 = 3_000;

/// The guest's memory, from its address 0 on.
const MEMORY: usize = 0x1_0000;
const PAGE_TABLES: usize = 0;
const SEGMENTS: usize = 0x3000;
const INTERRUPTS: usize = 0x4000;
const CODE: usize = 0x5000;
const STACK: usize = 0x8000;
/// The host's tree, of one channel: the root, and the channel's generation on the next line.
const HOST_TREE: usize = 0x8000;
const GUEST_ARMED: usize = 0x9000;
const GUEST_TREE: usize = 0xa000;
const HOST_ARMED: usize = 0xb000;
/// What the guest tells: the generation that it answers, its armings, interrupts and rings.
const TOLD: usize = 0xc000;
const STOP: usize = 0xd000;

/// Where nothing is: a write there rings.
const DOORBELL: u64 = 0x10_0000;
/// An output there ends the guest.
const END_PORT: u16 = 0xf4;
/// The line of the interrupt controller, and the vector that the guest gives it.
const LINE: u32 = 5;
const VECTOR: usize = 0x25;

unsafe extern "C" {
    static shmbus_guest: u8;
    static shmbus_guest_interrupt: u8;
    static shmbus_guest_end: u8;
}

// Its registers: r15 = 0x8000, which the offsets below are from; r12, the host's stamp that it has seen; r13, its own
// stamp; r14, the armed word that it has answered.
global_asm!(
    ".pushsection .rodata.shmbus_guest, \"a\"",
    ".globl shmbus_guest, shmbus_guest_interrupt, shmbus_guest_end",
    "shmbus_guest:",
    // The interrupt controller: edges, vectors from 0x20 on, a second one at line 2, automatic end, line 5 only.
    "    mov al, 0x11",
    "    out 0x20, al",
    "    mov al, 0x20",
    "    out 0x21, al",
    "    mov al, 4",
    "    out 0x21, al",
    "    mov al, 3",
    "    out 0x21, al",
    "    mov al, 0xdf",
    "    out 0x21, al",
    "    mov r15d, 0x8000",
    "    xor r12d, r12d",
    "    xor r13d, r13d",
    "    xor r14d, r14d",
    // Until it sleeps, no interrupt: between the last look and the sleep one would be for nothing.
    "2:  cli",
    "    mov rax, [r15]",
    "    cmp rax, r12",
    "    jne 3f",
    // Arms for the next stamp, looks again, sleeps. `sti` takes effect behind `hlt`.
    "    inc qword ptr [r15 + 0x4008]",
    "    lea rbx, [rax + 1]",
    "    mov [r15 + 0x1000], rbx",
    "    mfence",
    "    cmp [r15], rax",
    "    jne 3f",
    "    sti",
    "    hlt",
    "    jmp 2b",
    // Awake: disarms, reads the stamp and the channel's generation, and answers that.
    "3:  mov qword ptr [r15 + 0x1000], 0",
    "    mov r12, [r15]",
    "    mov rcx, [r15 + 0x40]",
    "    cmp qword ptr [r15 + 0x5000], 0",
    "    jne 4f",
    "    mov [r15 + 0x4000], rcx",
    "    inc r13",
    "    mov [r15 + 0x2040], r13",
    "    mov [r15 + 0x2000], r13",
    "    mfence",
    // Rings if the host is armed, for no more than this stamp, and was not answered yet.
    "    mov rax, [r15 + 0x3000]",
    "    test rax, rax",
    "    jz 2b",
    "    cmp rax, r14",
    "    je 2b",
    "    cmp r13, rax",
    "    jb 2b",
    "    mov r14, rax",
    "    inc qword ptr [r15 + 0x4018]",
    "    mov ebx, 0x100000",
    "    mov [rbx], ecx",
    "    jmp 2b",
    // The end: writes of all widths, each of which rings, and two that do not.
    "4:  mov ebx, 0x100000",
    "    mov eax, 0x1234",
    "    out 0xf6, ax",
    "    mov dword ptr [rbx + 8], 7",
    "    mov qword ptr [rbx + 16], 9",
    "    mov dword ptr [rbx + 8], 8",
    "    mov word ptr [rbx + 8], 7",
    "    out 0xf4, al",
    "shmbus_guest_interrupt:",
    "    inc qword ptr [r15 + 0x4010]",
    "    iretq",
    "shmbus_guest_end:",
    ".popsection",
);

/// Puts the guest and what a processor needs for it into memory: page tables that map the first 2 MiB onto themselves,
/// segments, one interrupt.
fn load(memory: &Mapped) {
    let word = |at: usize, value: u64| {
        Field::<u64, _>::new(memory, at)
            .unwrap()
            .store(value, Relaxed);
    };
    word(PAGE_TABLES, 0x1000 | 3);
    word(PAGE_TABLES + 0x1000, 0x2000 | 3);
    word(PAGE_TABLES + 0x2000, 0x83);
    word(SEGMENTS + 8, 0x00af_9b00_0000_ffff);
    word(SEGMENTS + 16, 0x00cf_9300_0000_ffff);
    let begin = &raw const shmbus_guest;
    let offset = |of: *const u8| of.addr() - begin.addr();
    let len = offset(&raw const shmbus_guest_end);
    // SAFETY: both symbols are in one section, and what is between them is constant bytes.
    let code = unsafe { slice::from_raw_parts(begin, len) };
    for (index, bytes) in code.chunks(8).enumerate() {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        word(CODE + 8 * index, u64::from_le_bytes(padded));
    }
    // A gate: offset 15..0, selector 8, present interrupt gate; the offset is below 64 KiB.
    let handler = (CODE + offset(&raw const shmbus_guest_interrupt)) as u64;
    word(INTERRUPTS + 16 * VECTOR, handler | 8 << 16 | 0x8e00 << 32);
}

/// A processor in 64-bit mode, at the guest's first instruction.
fn processor(kvm: &Kvm, vm: &VmFd) -> VcpuFd {
    let vcpu = vm.create_vcpu(0).unwrap();
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
    vcpu.set_cpuid2(&cpuid.unwrap()).unwrap();
    let mut state = vcpu.get_sregs().unwrap();
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 16,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment {
        selector: 8,
        type_: 11,
        db: 0,
        l: 1,
        ..data
    };
    (state.cs, state.ds, state.es, state.ss) = (code, data, data, data);
    (state.gdt.base, state.gdt.limit) = (SEGMENTS as u64, 23);
    (state.idt.base, state.idt.limit) = (INTERRUPTS as u64, 0xfff);
    state.cr3 = PAGE_TABLES as u64;
    state.cr4 |= 1 << 5; // PAE
    state.cr0 |= 1 << 31 | 1; // PG, PE
    state.efer |= 1 << 10 | 1 << 8; // LMA, LME
    vcpu.set_sregs(&state).unwrap();
    let registers = kvm_regs {
        rip: CODE as u64,
        rsp: STACK as u64,
        rflags: 2,
        ..Default::default()
    };
    vcpu.set_regs(&registers).unwrap();
    vcpu
}

#[test]
fn a_guest_is_woken_when_it_armed_and_rings_without_an_exit() {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("SKIPPED: /dev/kvm cannot be opened: {error}");
            return;
        }
    };
    let shared = SharedMemory::create("guest", MEMORY as u64, Writers::Everybody).unwrap();
    let memory = shared.window();
    load(memory);
    let vm = kvm.create_vm().unwrap();
    vm.set_tss_address(0xfffb_d000).unwrap();
    vm.create_irq_chip().unwrap();
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping, never unmapped, of memory whose accesses here are atomic, and which cannot shrink.
    let base = unsafe { mmap(ptr::null_mut(), MEMORY, protection, flags, &shared, 0) }.unwrap();
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: base.addr() as u64,
        ..Default::default()
    };
    // SAFETY: the mapping is there for as long as the process is.
    unsafe { vm.set_user_memory_region(region) }.unwrap();

    let part = |at: usize| memory.narrow(at, 0x1000).unwrap();
    let layout = DoorbellLayout::new(1).unwrap();
    let mut sender = Sender::new(&part(HOST_TREE), &part(GUEST_ARMED), layout).unwrap();
    let receiver = Receiver::new(&part(GUEST_TREE), &part(HOST_ARMED), layout, vec![0]).unwrap();
    let (interrupt, notifier) = Interrupt::register(&vm, LINE).unwrap();
    let address = IoEventAddress::Mmio(DOORBELL);
    let (doorbell, waiter) = GuestDoorbell::register(&vm, address, Written::Anything).unwrap();
    assert!(matches!(
        GuestDoorbell::register(&vm, address, Written::Anything),
        Err(KvmError::Kvm { .. })
    ));
    let mut set = SignalSet::new().unwrap();
    set.set_spin(Duration::ZERO);
    set.add_doorbell(receiver, waiter, Priority::HIGHEST)
        .unwrap();

    let mut vcpu = processor(&kvm, &vm);
    let running = thread::spawn(move || {
        let mut unmatched = Vec::new();
        loop {
            match vcpu.run() {
                Ok(VcpuExit::IoOut(END_PORT, _)) => return Ok(unmatched),
                Ok(VcpuExit::MmioWrite(address, bytes)) => {
                    unmatched.push((address, bytes.to_vec()));
                }
                Ok(other) => return Err(format!("{other:?}")),
                Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    });

    let told = |index: usize| {
        Field::<u64, _>::new(memory, TOLD + 8 * index)
            .unwrap()
            .load(Relaxed)
    };
    let raise = |sender: &mut Sender<_, _>| {
        if sender.raise(0).unwrap().is_needed() {
            notifier.notify().unwrap();
        }
    };
    let armed = Field::<u64, _>::new(memory, GUEST_ARMED).unwrap();
    let mut raised = 0;
    for round in 0..ROUNDS {
        // Every other time the guest is about to sleep, or does.
        while round % 2 == 1 && armed.load(Relaxed) == 0 && !running.is_finished() {
            thread::yield_now();
        }
        // One, or a few at once: whatever comes while the guest is awake, or being woken, interrupts it no more.
        for _ in 0..1 + round % 3 {
            raise(&mut sender);
            raised += 1;
        }
        while told(0) < raised {
            if running.is_finished() {
                panic!("the guest left: {:?}", running.join());
            }
            assert!(set.wait(Some(LOST)).unwrap(), "a wake-up was lost");
            while let Some(event) = set.next_event() {
                assert!(matches!(event, Event::Raised { channel: 0, .. }));
            }
        }
        assert_eq!(told(0), raised);
    }
    let (armings, interrupts, rings) = (told(1), told(2), told(3));
    let sent = sender.counts().sent;
    assert!(0 < interrupts && interrupts <= sent, "{interrupts}, {sent}");
    assert!(sent <= armings, "{sent} interrupts for {armings} armings");
    assert!(sent >= ROUNDS / 2, "the guest never slept: {sent}");
    assert!(rings > 0, "the host never slept");
    println!(
        "{raised} raised, {sent} sent, {interrupts} interrupts, {armings} armings, {rings} rings"
    );

    // Doorbells that ring for one value and width.
    let matching = [
        (IoEventAddress::Pio(0xf6), Written::U16(0x1234)),
        (IoEventAddress::Mmio(DOORBELL + 8), Written::U32(7)),
        (IoEventAddress::Mmio(DOORBELL + 16), Written::U64(9)),
    ];
    let matching =
        matching.map(|(address, written)| GuestDoorbell::register(&vm, address, written).unwrap());
    Field::<u64, _>::new(memory, STOP)
        .unwrap()
        .store(1, Relaxed);
    raise(&mut sender);
    let unmatched = running.join().unwrap().unwrap();
    let of_value = (DOORBELL + 8, 8_u32.to_ne_bytes().to_vec());
    let of_width = (DOORBELL + 8, 7_u16.to_ne_bytes().to_vec());
    assert_eq!(unmatched, [of_value, of_width]);
    for (matching, waiter) in matching {
        assert!(waiter.drain().unwrap(), "{matching:?}");
        assert!(!waiter.drain().unwrap());
        matching.unregister(&vm).unwrap();
    }
    doorbell.unregister(&vm).unwrap();
    interrupt.unregister(&vm).unwrap();
    // Its address is free again.
    let (_again, _) = GuestDoorbell::register(&vm, address, Written::Anything).unwrap();
}
